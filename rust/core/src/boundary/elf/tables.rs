//! The tables of one loaded object, read where the loader mapped them: imports, symbols, versions, hash.
//!
//! Source: the ELF gABI, its x86-64 and AArch64 supplements, and glibc's elf/dl-lookup.c for the hashes. Files come from
//! anywhere (patchelf, other linkers): each address is checked against the object's segments before it is read, and
//! what does not fit is left out.

use super::object::Mapped;
use crate::primitive::tries::try_push;
use std::ffi::CStr;

const DT_PLTRELSZ: i64 = 2;
const DT_HASH: i64 = 4;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_STRSZ: i64 = 10;
const DT_SONAME: i64 = 14;
const DT_PLTREL: i64 = 20;
const DT_JMPREL: i64 = 23;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
const DT_VERSYM: i64 = 0x6fff_fff0;
const DT_VERNEED: i64 = 0x6fff_fffe;
const DT_VERNEEDNUM: i64 = 0x6fff_ffff;

#[cfg(target_arch = "x86_64")]
const R_GLOB_DAT: u32 = 6;
#[cfg(target_arch = "x86_64")]
const R_JUMP_SLOT: u32 = 7;
#[cfg(target_arch = "aarch64")]
const R_GLOB_DAT: u32 = 1025;
#[cfg(target_arch = "aarch64")]
const R_JUMP_SLOT: u32 = 1026;

/// Version index without the bit that hides a symbol from unversioned references.
const VERSION_INDEX: u16 = 0x7fff;
/// Up to here an index means no version: 0 local, 1 global.
const VERSION_NONE: u16 = 1;

#[repr(C)]
#[derive(Clone, Copy)]
struct Dynamic {
    tag: i64,
    value: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Relocation {
    offset: u64,
    info: u64,
    addend: i64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: u64,
    size: u64,
}

/// A needed library in DT_VERNEED: how many versions of it, and where they and the next library are, in bytes from here.
#[repr(C)]
#[derive(Clone, Copy)]
struct Needed {
    version: u16,
    count: u16,
    file: u32,
    first: u32,
    next: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct NeededVersion {
    hash: u32,
    flags: u16,
    index: u16,
    name: u32,
    next: u32,
}

/// How the object reaches what an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportKind {
    /// JUMP_SLOT: calls go through it; the loader may fill it at the first call.
    Call,
    /// GLOB_DAT: filled when the object is loaded; the function's address is taken, or calls go through it (-fno-plt).
    Address,
}

/// One entry of an object's import tables.
#[derive(Debug, Clone, Copy)]
pub struct Import<'a> {
    /// The name.
    pub symbol: &'a CStr,
    /// The version this object was linked to, if any.
    pub version: Option<&'a CStr>,
    /// The kind of entry.
    pub kind: ImportKind,
    /// Address of the pointer.
    pub slot: usize,
    /// The object has a definition of its own, which others may replace.
    pub is_defined: bool,
}

/// What an object defines under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Definition {
    /// Nothing; or the object has no hash to find it by.
    None,
    /// A function without a version, which satisfies any reference: what LD_PRELOAD libraries have.
    Unversioned,
    /// Functions with versions.
    Versioned,
}

/// Why tables could not be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// What is missing or does not fit.
    Malformed(&'static str),
    /// Memory is refused.
    NoMemory,
}

/// The tables. Read-only parts of a mapped file, valid as long as the object is held.
pub(super) struct Tables<'a> {
    object: Mapped<'a>,
    strings: &'a [u8],
    symbols: usize,
    versions: Option<usize>,
    /// Index and name of each version this object needs.
    needed: Vec<(u16, &'a CStr)>,
    calls: &'a [Relocation],
    others: &'a [Relocation],
    gnu_hash: Option<usize>,
    sysv_hash: Option<usize>,
}

impl<'a> Tables<'a> {
    /// Finds them.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub(super) fn read(object: Mapped<'a>) -> Result<Self, Unreadable> {
        let section = Section::of(object).ok_or(Unreadable::Malformed("no dynamic section"))?;
        let address = |tag| section.value(tag).map(|v| object.absolute(v));
        let strings = address(DT_STRTAB).ok_or(Unreadable::Malformed("no string table"))?;
        let bytes = section.value(DT_STRSZ).ok_or(Unreadable::Malformed("no size of the string table"))?;
        let strings =
            object.slice::<u8>(strings, bytes).ok_or(Unreadable::Malformed("string table outside of the object"))?;
        let symbols = address(DT_SYMTAB).ok_or(Unreadable::Malformed("no symbol table"))?;
        let relocations = |table, size| -> Result<&'a [Relocation], Unreadable> {
            let (Some(table), Some(bytes)) = (address(table), section.value(size)) else { return Ok(&[]) };
            let count = bytes / size_of::<Relocation>();
            object.slice(table, count).ok_or(Unreadable::Malformed("relocations outside of the object"))
        };
        if section.value(DT_PLTREL).is_some_and(|kind| kind as i64 != DT_RELA) {
            return Err(Unreadable::Malformed("relocations without addends"));
        }
        let mut out = Self {
            object,
            strings,
            symbols,
            versions: address(DT_VERSYM),
            needed: Vec::new(),
            calls: relocations(DT_JMPREL, DT_PLTRELSZ)?,
            others: relocations(DT_RELA, DT_RELASZ)?,
            gnu_hash: address(DT_GNU_HASH),
            sysv_hash: address(DT_HASH),
        };
        if let (Some(first), Some(count)) = (address(DT_VERNEED), section.value(DT_VERNEEDNUM)) {
            out.needed = out.read_needed(first, count).ok_or(Unreadable::NoMemory)?;
        }
        Ok(out)
    }

    fn string(&self, offset: u32) -> Option<&'a CStr> {
        CStr::from_bytes_until_nul(self.strings.get(offset as usize..)?).ok()
    }

    /// `None`: memory is refused.
    fn read_needed(&self, first: usize, count: usize) -> Option<Vec<(u16, &'a CStr)>> {
        let mut out = Vec::new();
        let mut at = first;
        for _ in 0..count {
            let Some(library) = self.object.read::<Needed>(at) else { break };
            let mut version_at = at + library.first as usize;
            for _ in 0..library.count {
                let Some(version) = self.object.read::<NeededVersion>(version_at) else { break };
                if let Some(name) = self.string(version.name) {
                    try_push(&mut out, (version.index & VERSION_INDEX, name))?;
                }
                version_at += version.next as usize;
            }
            at += library.next as usize;
        }
        Some(out)
    }

    fn symbol(&self, index: u32) -> Option<Symbol> {
        self.object.read(self.symbols + index as usize * size_of::<Symbol>())
    }

    fn version_index(&self, symbol: u32) -> Option<u16> {
        self.object.read::<u16>(self.versions? + symbol as usize * size_of::<u16>())
    }

    /// The version a reference names.
    fn needed_version(&self, symbol: u32) -> Option<&'a CStr> {
        let index = self.version_index(symbol)? & VERSION_INDEX;
        self.needed.iter().find(|(i, _)| *i == index).map(|(_, name)| *name)
    }

    /// All entries, calls first.
    pub(super) fn imports(&self) -> impl Iterator<Item = Import<'a>> + '_ {
        // Some linkers count the calls among the others too.
        let counted_twice = self.calls.as_ptr_range();
        let others = self.others.iter().filter(move |r| !counted_twice.contains(&std::ptr::from_ref(*r)));
        self.calls.iter().chain(others).filter_map(|r| self.import(r))
    }

    fn import(&self, relocation: &Relocation) -> Option<Import<'a>> {
        let kind = match relocation.info as u32 {
            R_JUMP_SLOT => ImportKind::Call,
            R_GLOB_DAT => ImportKind::Address,
            _ => return None,
        };
        let index = (relocation.info >> 32) as u32;
        let symbol = self.symbol(index)?;
        let slot = self.object.base().wrapping_add(relocation.offset as usize);
        // A slot that is not a pointer of this object's own cannot be read, let alone replaced.
        self.object.slice::<usize>(slot, 1)?;
        Some(Import {
            symbol: self.string(symbol.name)?,
            version: self.needed_version(index),
            kind,
            slot,
            is_defined: symbol.section != 0,
        })
    }

    /// What the object defines under `name`.
    pub(super) fn definition(&self, name: &CStr) -> Definition {
        let mut found = Definition::None;
        self.each_named(name, |index| {
            let is_defined = self.symbol(index).is_some_and(|s| s.section != 0);
            if is_defined && self.version_index(index).is_none_or(|v| v <= VERSION_NONE) {
                found = Definition::Unversioned;
            } else if is_defined && found == Definition::None {
                found = Definition::Versioned;
            }
        });
        found
    }

    /// Calls `see` with the indices of the symbols of that name, by whichever hash the object has.
    fn each_named(&self, name: &CStr, see: impl FnMut(u32)) {
        let _ = match (self.gnu_hash, self.sysv_hash) {
            (Some(table), _) => self.by_gnu_hash(table, name, see),
            (None, Some(table)) => self.by_sysv_hash(table, name, see),
            (None, None) => None,
        };
    }

    fn is_named(&self, index: u32, name: &CStr) -> bool {
        self.symbol(index).and_then(|s| self.string(s.name)) == Some(name)
    }

    /// `None`: the table ends too early.
    fn by_gnu_hash(&self, table: usize, name: &CStr, mut see: impl FnMut(u32)) -> Option<()> {
        let [buckets, first, bloom_words, _] = *self.object.slice::<u32>(table, 4)? else { return None };
        let hash = name.to_bytes().iter().fold(5381_u32, |h, b| h.wrapping_mul(33).wrapping_add(u32::from(*b)));
        let bucket_table = table + 16 + bloom_words as usize * 8;
        let chain = bucket_table + buckets as usize * 4;
        let mut index: u32 = self.object.read(bucket_table + hash.checked_rem(buckets)? as usize * 4)?;
        while index >= first {
            let here: u32 = self.object.read(chain + (index - first) as usize * 4)?;
            if here | 1 == hash | 1 && self.is_named(index, name) {
                see(index);
            }
            if here & 1 != 0 {
                break;
            }
            index += 1;
        }
        Some(())
    }

    /// As `by_gnu_hash`.
    fn by_sysv_hash(&self, table: usize, name: &CStr, mut see: impl FnMut(u32)) -> Option<()> {
        let [buckets, chains] = *self.object.slice::<u32>(table, 2)? else { return None };
        let hash = name.to_bytes().iter().fold(0_u32, |h, b| {
            let h = (h << 4).wrapping_add(u32::from(*b));
            (h ^ ((h & 0xf000_0000) >> 24)) & 0x0fff_ffff
        });
        let word = |i: u32| self.object.read::<u32>(table + 8 + i as usize * 4);
        let mut index = word(hash.checked_rem(buckets)?)?;
        // A broken chain may be a circle; a whole one is never longer than the table.
        for _ in 0..chains {
            if index == 0 {
                break;
            }
            if self.is_named(index, name) {
                see(index);
            }
            index = word(buckets.checked_add(index)?)?;
        }
        Some(())
    }
}

/// The dynamic section itself.
struct Section<'a>(&'a [Dynamic]);

impl<'a> Section<'a> {
    fn of(object: Mapped<'a>) -> Option<Self> {
        let range = object.dynamic()?;
        object.slice(range.start, range.len() / size_of::<Dynamic>()).map(Self)
    }

    fn value(&self, tag: i64) -> Option<usize> {
        self.0.iter().take_while(|e| e.tag != 0).find(|e| e.tag == tag).map(|e| e.value as usize)
    }
}

/// The name the object gives itself.
pub(super) fn own_name(object: Mapped<'_>) -> Option<&CStr> {
    let section = Section::of(object)?;
    let strings = object.slice::<u8>(object.absolute(section.value(DT_STRTAB)?), section.value(DT_STRSZ)?)?;
    CStr::from_bytes_until_nul(strings.get(section.value(DT_SONAME)?..)?).ok()
}
