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
pub fn blocks(_out: &mut Vec<Block>) {}

/// What a thread's block of an object begins with.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// The bytes that are not zero at first.
    pub start: *const u8,
    /// How many those are.
    pub filled: usize,
    /// The block's size.
    pub bytes: usize,
    /// What its address is a multiple of.
    pub align: usize,
}

/// None.
pub fn image(_module: usize) -> Option<Image> {
    None
}
