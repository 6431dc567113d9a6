//! Where thread-locals are is not known here: macOS, where no call parks in C code yet, and the models.

/// One object's block of thread-locals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// The loader's number for the object.
    pub module: usize,
    /// Where it starts.
    pub start: usize,
    /// Its size.
    pub bytes: usize,
}

/// None.
pub fn blocks() -> Vec<Block> {
    Vec::new()
}
