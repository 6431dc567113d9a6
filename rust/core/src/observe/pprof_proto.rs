//! Bytes of a pprof profile: the message `perftools.profiles.Profile` that `go tool pprof` reads, not yet compressed.
//!
//! Source: github.com/google/pprof, proto/profile.proto; field numbers as there. Samples come first and one by one; strings,
//! functions and locations are numbered as they are first met and written at the end, which the format allows. A profile is made
//! where memory may be short, so whatever grows may be refused: then there is no profile, and nothing else has changed.

use crate::primitive::tries::{try_push, try_text};
use std::collections::HashMap;

/// Fields of Profile.
mod field {
    pub(super) const SAMPLE_TYPE: u64 = 1;
    pub(super) const SAMPLE: u64 = 2;
    pub(super) const MAPPING: u64 = 3;
    pub(super) const LOCATION: u64 = 4;
    pub(super) const FUNCTION: u64 = 5;
    pub(super) const STRING: u64 = 6;
    pub(super) const TIME_NS: u64 = 9;
    pub(super) const DURATION_NS: u64 = 10;
    pub(super) const PERIOD_TYPE: u64 = 11;
    pub(super) const PERIOD: u64 = 12;
    pub(super) const COMMENT: u64 = 13;
    pub(super) const DEFAULT_TYPE: u64 = 14;
}

/// What a value counts and in which unit: `("cpu", "nanoseconds")`.
pub type Kind<'a> = (&'a str, &'a str);

/// One place in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What tells it from others of the profile; need not be an address of anything.
    pub address: u64,
    /// The function, as reports show it.
    pub name: &'a str,
    /// The same, as the language has it. Where the two differ, pprof takes the first as it is and does not look for C++ in it.
    pub system_name: &'a str,
    /// Its file.
    pub file: &'a str,
    /// The line, from 1; 0: not known.
    pub line: i64,
    /// The line its function begins at; 0: not known.
    pub start_line: i64,
}

/// What a sample is labelled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label<'a> {
    /// A name and a text.
    Text(&'a str, &'a str),
    /// A name, a number and its unit.
    Number(&'a str, i64, &'a str),
}

/// A buffer of wire format. Empty messages and fields with the value 0 are left out: that is what their absence means.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Wire {
    fn varint(&mut self, mut n: u64) -> Option<()> {
        self.0.try_reserve(10).ok()?; // seven bits a byte
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
        Some(())
    }

    /// A field of wire type 0.
    fn number(&mut self, field: u64, n: i64) -> Option<()> {
        if n == 0 {
            return Some(());
        }
        self.varint(field << 3)?;
        self.varint(n as u64) // a negative one takes ten bytes, as the format says
    }

    /// A field of wire type 2.
    fn bytes(&mut self, field: u64, bytes: &[u8]) -> Option<()> {
        self.varint(field << 3 | 2)?;
        self.varint(bytes.len() as u64)?;
        self.0.try_reserve(bytes.len()).ok()?;
        self.0.extend_from_slice(bytes);
        Some(())
    }

    /// A repeated number, packed; `scratch` is emptied.
    fn packed(&mut self, field: u64, numbers: impl Iterator<Item = u64>, scratch: &mut Wire) -> Option<()> {
        scratch.0.clear();
        for n in numbers {
            scratch.varint(n)?;
        }
        if scratch.0.is_empty() { Some(()) } else { self.bytes(field, &scratch.0) }
    }
}

/// Numbers of texts: 0 is the empty one.
struct Strings {
    numbers: HashMap<String, i64>,
    wire: Wire,
}

impl Strings {
    fn new() -> Option<Self> {
        let mut new = Self { numbers: HashMap::new(), wire: Wire::default() };
        new.wire.bytes(field::STRING, b"")?;
        Some(new)
    }

    fn number(&mut self, text: &str) -> Option<i64> {
        if text.is_empty() {
            return Some(0);
        }
        if let Some(&number) = self.numbers.get(text) {
            return Some(number);
        }
        self.numbers.try_reserve(1).ok()?;
        let number = self.numbers.len() as i64 + 1;
        let kept = try_text(text)?;
        self.wire.bytes(field::STRING, text.as_bytes())?;
        self.numbers.insert(kept, number);
        Some(number)
    }
}

/// A profile in the making. Every method gives `None` when memory is refused; then it is of no use any more.
pub struct Profile {
    strings: Strings,
    /// By name, system name, file and first line.
    functions: HashMap<(i64, i64, i64, i64), u64>,
    /// By address, function and line.
    locations: HashMap<(u64, u64, i64), u64>,
    function_wire: Wire,
    location_wire: Wire,
    /// What else there is, in the order of the calls.
    wire: Wire,
    message: Wire,
    scratch: Wire,
}

impl Profile {
    /// An empty one of the program of this file.
    pub fn new(program: &str) -> Option<Self> {
        let mut new = Self {
            strings: Strings::new()?,
            functions: HashMap::new(),
            locations: HashMap::new(),
            function_wire: Wire::default(),
            location_wire: Wire::default(),
            wire: Wire::default(),
            message: Wire::default(),
            scratch: Wire::default(),
        };
        new.mapping(program)?;
        Some(new)
    }

    /// One mapping for everything, which says that names and lines are there: pprof has nothing to look up.
    fn mapping(&mut self, program: &str) -> Option<()> {
        /// All that a signed number holds.
        const LIMIT: i64 = i64::MAX;
        self.message.0.clear();
        self.message.number(1, 1)?;
        self.message.number(3, LIMIT)?;
        let file = self.strings.number(program)?;
        self.message.number(5, file)?;
        for has in [7, 8, 9] {
            self.message.number(has, 1)?;
        }
        self.wire.bytes(field::MAPPING, &self.message.0)
    }

    fn kind(&mut self, field: u64, kind: Kind<'_>) -> Option<()> {
        let (name, unit) = (self.strings.number(kind.0)?, self.strings.number(kind.1)?);
        self.message.0.clear();
        self.message.number(1, name)?;
        self.message.number(2, unit)?;
        self.wire.bytes(field, &self.message.0)
    }

    /// One more value of each sample, in the order of the calls.
    pub fn sample_type(&mut self, kind: Kind<'_>) -> Option<()> {
        self.kind(field::SAMPLE_TYPE, kind)
    }

    /// Between two samples lie so many of these.
    pub fn period(&mut self, kind: Kind<'_>, period: i64) -> Option<()> {
        self.kind(field::PERIOD_TYPE, kind)?;
        self.wire.number(field::PERIOD, period)
    }

    /// When it was made, ns since 1970, and what time it covers, ns.
    pub fn times(&mut self, time_ns: i64, duration_ns: i64) -> Option<()> {
        self.wire.number(field::TIME_NS, time_ns)?;
        self.wire.number(field::DURATION_NS, duration_ns)
    }

    /// The sample type that is shown unless another is asked for.
    pub fn default_type(&mut self, name: &str) -> Option<()> {
        let name = self.strings.number(name)?;
        self.wire.number(field::DEFAULT_TYPE, name)
    }

    /// A line of text that reports show.
    pub fn comment(&mut self, text: &str) -> Option<()> {
        let text = self.strings.number(text)?;
        self.wire.number(field::COMMENT, text)
    }

    /// The number of a place in the code, which samples name it by.
    pub fn location(&mut self, frame: &Frame<'_>) -> Option<u64> {
        let function = self.function(frame)?;
        let key = (frame.address, function, frame.line);
        if let Some(&id) = self.locations.get(&key) {
            return Some(id);
        }
        self.locations.try_reserve(1).ok()?;
        let id = self.locations.len() as u64 + 1;
        self.scratch.0.clear();
        self.scratch.number(1, function as i64)?;
        self.scratch.number(2, frame.line)?;
        self.message.0.clear();
        self.message.number(1, id as i64)?;
        self.message.number(2, 1)?; // the mapping
        self.message.number(3, frame.address as i64)?;
        self.message.bytes(4, &self.scratch.0)?;
        self.location_wire.bytes(field::LOCATION, &self.message.0)?;
        self.locations.insert(key, id);
        Some(id)
    }

    fn function(&mut self, frame: &Frame<'_>) -> Option<u64> {
        let name = self.strings.number(frame.name)?;
        let system_name = self.strings.number(frame.system_name)?;
        let file = self.strings.number(frame.file)?;
        let key = (name, system_name, file, frame.start_line);
        if let Some(&id) = self.functions.get(&key) {
            return Some(id);
        }
        self.functions.try_reserve(1).ok()?;
        let id = self.functions.len() as u64 + 1;
        self.message.0.clear();
        for (field, n) in [(1, id as i64), (2, name), (3, system_name), (4, file), (5, frame.start_line)] {
            self.message.number(field, n)?;
        }
        self.function_wire.bytes(field::FUNCTION, &self.message.0)?;
        self.functions.insert(key, id);
        Some(id)
    }

    /// One sample: its places, the innermost first, a value for each sample type, and labels.
    pub fn sample(&mut self, stack: &[u64], values: &[i64], labels: &[Label<'_>]) -> Option<()> {
        let mut numbers = Vec::new();
        for label in labels {
            let (key, text, number, unit) = match *label {
                Label::Text(key, text) => (key, text, 0, ""),
                Label::Number(key, number, unit) => (key, "", number, unit),
            };
            let numbered = [self.strings.number(key)?, self.strings.number(text)?, number, self.strings.number(unit)?];
            try_push(&mut numbers, numbered)?;
        }
        let (message, scratch) = (&mut self.message, &mut self.scratch);
        message.0.clear();
        message.packed(1, stack.iter().copied(), scratch)?;
        message.packed(2, values.iter().map(|&value| value as u64), scratch)?;
        for label in numbers {
            scratch.0.clear();
            for (field, n) in (1..).zip(label) {
                scratch.number(field, n)?;
            }
            message.bytes(3, &scratch.0)?;
        }
        self.wire.bytes(field::SAMPLE, &message.0)
    }

    /// All of it.
    pub fn finish(self) -> Option<Vec<u8>> {
        let mut out = self.wire.0;
        for table in [self.location_wire.0, self.function_wire.0, self.strings.wire.0] {
            out.try_reserve(table.len()).ok()?;
            out.extend_from_slice(&table);
        }
        Some(out)
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    /// Fields of a message: number, and a value or bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut n = 0;
            for shift in (0..).step_by(7) {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                n |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    return n;
                }
            }
            unreachable!("no message ends so");
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let n = varint(&mut bytes);
            match tag & 7 {
                0 => found.push((tag >> 3, n, Vec::new())),
                2 => {
                    found.push((tag >> 3, n, bytes[..n as usize].to_vec()));
                    bytes = &bytes[n as usize..];
                }
                other => panic!("wire type {other}"),
            }
        }
        found
    }

    fn of(all: &[(u64, u64, Vec<u8>)], field: u64) -> Vec<Vec<u8>> {
        all.iter().filter(|f| f.0 == field).map(|f| f.2.clone()).collect()
    }

    const WORK: Frame<'_> =
        Frame { address: 0x1234, name: "app.work", system_name: "work", file: "app.py", line: 7, start_line: 5 };

    fn whole() -> Vec<u8> {
        let mut profile = Profile::new("python").unwrap();
        profile.sample_type(("samples", "count")).unwrap();
        profile.sample_type(("cpu", "nanoseconds")).unwrap();
        profile.period(("cpu", "nanoseconds"), 10_000_000).unwrap();
        profile.times(1_000, 2_000).unwrap();
        profile.default_type("cpu").unwrap();
        profile.comment("by a test").unwrap();
        let (inner, outer) = (profile.location(&WORK).unwrap(), Frame { line: 8, address: 0x1240, ..WORK });
        let outer = profile.location(&outer).unwrap();
        assert_eq!((inner, outer, profile.location(&WORK).unwrap()), (1, 2, 1));
        let labels = [Label::Text("user", "7"), Label::Number("bytes", 512, "bytes")];
        profile.sample(&[inner, outer], &[3, -300], &labels).unwrap();
        profile.sample(&[], &[0, 0], &[]).unwrap();
        profile.finish().unwrap()
    }

    #[test]
    fn all_parts_are_there_and_name_each_other() {
        let all = fields(&whole());
        let strings: Vec<String> =
            of(&all, field::STRING).into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect();
        let text = |number: u64| strings[number as usize].as_str();
        let kinds: Vec<_> = of(&all, field::SAMPLE_TYPE).iter().map(|kind| fields(kind)).collect();
        assert_eq!(
            kinds.iter().map(|kind| (text(kind[0].1), text(kind[1].1))).collect::<Vec<_>>(),
            [("samples", "count"), ("cpu", "nanoseconds")]
        );
        let functions = of(&all, field::FUNCTION);
        let function = fields(&functions[0]);
        assert_eq!((functions.len(), text(function[1].1), text(function[3].1)), (1, "app.work", "app.py"));
        let locations = of(&all, field::LOCATION);
        assert_eq!((locations.len(), fields(&locations[0])[2].1), (2, 0x1234));
        assert_eq!(fields(&fields(&locations[1])[3].2), [(1, 1, Vec::new()), (2, 8, Vec::new())]);
        let mapping = fields(&of(&all, field::MAPPING)[0]);
        assert_eq!(text(mapping.iter().find(|f| f.0 == 5).unwrap().1), "python");
        assert_eq!(strings.iter().filter(|s| s.as_str() == "cpu").count(), 1);
        assert_eq!(strings[0], "");
    }

    #[test]
    fn samples_have_their_places_values_and_labels() {
        let all = fields(&whole());
        let samples = of(&all, field::SAMPLE);
        let parts = fields(&samples[0]);
        assert_eq!(parts[0].2, [1, 2]);
        let minus_300 = [0xd4, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!((parts[1].2[0], &parts[1].2[1..]), (3, &minus_300[..]));
        let (text, number) = (fields(&parts[2].2), fields(&parts[3].2));
        assert_eq!(text.iter().map(|f| f.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(number.iter().map(|f| (f.0, f.1)).find(|f| f.0 == 3), Some((3, 512)));
        assert_eq!(fields(&samples[1]), [(2, 2, vec![0, 0])]); // no places and two values, which must be there
    }

    #[test]
    fn single_numbers_are_there_unless_they_are_zero() {
        let all = fields(&whole());
        let number = |field: u64| all.iter().find(|f| f.0 == field).map(|f| f.1);
        assert_eq!((number(field::PERIOD), number(field::TIME_NS)), (Some(10_000_000), Some(1_000)));
        assert_eq!(number(field::DURATION_NS), Some(2_000));
        let mut empty = Profile::new("").unwrap();
        empty.times(0, 0).unwrap();
        assert!(fields(&empty.finish().unwrap()).iter().all(|f| f.0 != field::TIME_NS));
    }
}
