//! Lists and texts where memory may be refused: std's grow or end the process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Appends `item`; `None`: memory is refused, and the list is as before.
pub fn try_push<T>(list: &mut Vec<T>, item: T) -> Option<()> {
    list.try_reserve(1).ok()?;
    list.push(item);
    Some(())
}

/// A list of all `items`; `None`: memory is refused.
pub fn try_list<T>(items: impl IntoIterator<Item = T>) -> Option<Vec<T>> {
    let mut items = items.into_iter();
    let mut list = Vec::new();
    list.try_reserve(items.size_hint().0).ok()?;
    items.try_for_each(|item| try_push(&mut list, item))?;
    Some(list)
}

/// A copy without room for more; `None`: memory is refused.
pub fn try_copy<T: Copy>(items: &[T]) -> Option<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(items.len()).ok()?;
    list.extend_from_slice(items);
    Some(list)
}

/// A copy of `text`; `None`: memory is refused.
pub fn try_text(text: &str) -> Option<String> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).ok()?;
    copy.push_str(text);
    Some(copy)
}

/// A copy of `path`; `None`: memory is refused.
pub fn try_path(path: &Path) -> Option<PathBuf> {
    let mut copy = OsString::new();
    copy.try_reserve_exact(path.as_os_str().len()).ok()?;
    copy.push(path);
    Some(copy.into())
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn copies_are_what_std_would_make() {
        assert_eq!(try_list((0..100).filter(|n| n % 3 == 0)), Some((0..100).filter(|n| n % 3 == 0).collect()));
        assert_eq!((try_copy(&[1, 2]), try_text("ab")), (Some(vec![1, 2]), Some("ab".to_owned())));
        assert_eq!(try_copy(&[1_u8; 1000]).map(|copy| copy.capacity()), Some(1000));
    }
}
