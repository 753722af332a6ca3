//! Reads an `assignment` question in one piece (`wit/packed.wit`) where it lies.
//!
//! A question of a thousand nodes has some ten thousand short strings and lists. Giving each memory of its own takes
//! longer than some strategies do, so the strings of the question are those in the bytes that the host handed over,
//! which stay where they are until the instance ends, after its one answer, and its lists lie side by side in an arena.
//!
//! The `unsafe` blocks of the SDK are here, in `lend` and `lend_list`.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::net::IpAddr;
use std::ops::Deref;

use bumpalo::Bump;

use crate::assignment::{Node, Question, Responsibility};
use crate::{Adapter, AdapterStatus, Attributes};

/// A question that can be looked at, and is neither changed nor dropped: its strings may be lent, and to free the
/// others one by one is of no use right before their instance ends.
#[derive(Debug)]
pub struct Asked(ManuallyDrop<Question>);

impl From<Question> for Asked {
    fn from(question: Question) -> Self {
        Asked(ManuallyDrop::new(question))
    }
}

impl Deref for Asked {
    type Target = Question;

    fn deref(&self) -> &Question {
        &self.0
    }
}

/// How many times as long as its packed form the lists of a question are, and then some: one piece of memory for all.
const UNPACKED: usize = 3;
/// How many adapters of a node are read quickly where they are like those of the node before.
const PLACES: usize = 4;

/// Reads a question; `None` where the bytes are none. What follows it is ignored.
pub fn read(packed: &'static [u8]) -> Option<Asked> {
    let lists = Box::leak(Box::new(Bump::with_capacity(packed.len() * UNPACKED)));
    let mut reader = Reader { rest: packed, broken: false, lists, known: Box::leak(Box::default()) };
    let question = Asked::from(reader.question());
    (!reader.broken).then_some(question)
}

/// What is not read yet. Where that is not what it should be, it ends there, and all that would follow is empty:
/// nothing that was read before is dropped on the way.
///
/// Its methods are inlined (save those for what is rare), and what is called gets a copy: a reader that no reference
/// leads to stays in registers.
#[derive(Clone, Copy)]
struct Reader {
    rest: &'static [u8],
    broken: bool,
    /// Where the lists lie: to allocate each by itself takes longer than to fill it.
    lists: &'static Bump,
    /// By their place among a node's adapters, those that were last read.
    known: &'static [Cell<Option<&'static Known>>; PLACES],
}

/// An adapter with an IPv4 address and no attributes that was read: nodes of a cluster are much alike, so that the next
/// node's may differ in the address alone, and then takes a comparison.
struct Known {
    /// Its bytes before and after those of the address.
    around: [&'static [u8]; 2],
    adapter: Adapter,
}

impl Known {
    /// The same with another address.
    #[inline(always)]
    fn at(&'static self, address: [u8; 4]) -> Adapter {
        let Adapter { name, kind, prefix_length, mtu, speed, class_of_service, dscp, status, .. } =
            &self.adapter;
        Adapter {
            name: lend(name.as_bytes()),
            kind: lend(kind.as_bytes()),
            address: address.into(),
            prefix_length: *prefix_length,
            mtu: *mtu,
            speed: *speed,
            class_of_service: lend(class_of_service.as_bytes()),
            dscp: *dscp,
            status: *status,
            attributes: Attributes::new(),
        }
    }
}

impl Reader {
    #[inline(always)]
    fn question(&mut self) -> Question {
        Question {
            nodes: self.list(Self::node),
            responsibilities: self.list(Self::responsibility),
            previous: self.list(|reader| reader.list(Self::u32)),
            seed: self.varint(),
            attributes: self.attributes(),
        }
    }

    #[inline(always)]
    fn node(&mut self) -> Node {
        Node {
            id: self.text(),
            name: self.text(),
            live: self.case([false, true]),
            adapters: self.list_by_place(Self::adapter),
            attributes: self.attributes(),
        }
    }

    #[inline(always)]
    fn adapter(&mut self, place: usize) -> Adapter {
        let last = &self.known[place % PLACES];
        if let Some(known) = last.get()
            && let Some((address, reader)) = self.again(known)
        {
            *self = reader;
            return known.at(address);
        }
        let (adapter, reader) = self.other(last);
        *self = reader;
        adapter
    }

    /// The address of an adapter that is a known one but for it, and what follows it.
    #[inline(always)]
    fn again(mut self, known: &Known) -> Option<([u8; 4], Self)> {
        let [before, after] = known.around;
        self.pass(before)?;
        let address = self.array();
        self.pass(after)?;
        Some((address, self))
    }

    /// An adapter that is to be known from now on, and what follows it.
    #[inline(never)]
    fn other(mut self, last: &Cell<Option<&'static Known>>) -> (Adapter, Self) {
        let begin = self.rest;
        let (name, kind) = (self.text(), self.text());
        // And the case of the address.
        let before = begin.len() - self.rest.len() + 1;
        let adapter = Adapter {
            name,
            kind,
            address: self.address(),
            prefix_length: self.byte(),
            mtu: self.u32(),
            speed: self.u32(),
            class_of_service: self.text(),
            dscp: self.byte(),
            status: self.case([AdapterStatus::Up, AdapterStatus::Down]),
            attributes: self.attributes(),
        };
        let IpAddr::V4(address) = adapter.address else { return (adapter, self) };
        if self.broken || !adapter.attributes.is_empty() {
            return (adapter, self);
        }
        let read = &begin[..begin.len() - self.rest.len()];
        let around = [&read[..before], &read[before + 4..]];
        let known = self.lists.alloc(Known { around, adapter });
        last.set(Some(known));
        (known.at(address.octets()), self)
    }

    /// Passes over these bytes where they come next, if that is quickly told.
    #[inline(always)]
    fn pass(&mut self, expected: &[u8]) -> Option<()> {
        let (next, rest) = self.rest.split_at_checked(expected.len())?;
        self.rest = rest;
        same(next, expected).then_some(())
    }

    #[inline(always)]
    fn responsibility(&mut self) -> Responsibility {
        Responsibility {
            name: self.text(),
            replicas: self.u32(),
            weight_milli: self.u32(),
            requires: self.attributes(),
        }
    }

    #[inline(always)]
    fn attributes(&mut self) -> Attributes {
        if let Some((0, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Attributes::new();
        }
        let (attributes, reader) = self.pairs();
        *self = reader;
        attributes
    }

    /// Attributes of a list that is not empty, and what follows them; most are empty.
    #[inline(never)]
    fn pairs(mut self) -> (Attributes, Self) {
        let pairs = self.list(|reader| (reader.text(), reader.text()));
        (pairs, self)
    }

    #[inline(always)]
    fn address(&mut self) -> IpAddr {
        if self.case([true, false]) {
            IpAddr::from(self.array::<4>())
        } else {
            IpAddr::from(self.array::<16>())
        }
    }

    #[inline(always)]
    fn list<T: 'static>(&mut self, item: impl Fn(&mut Self) -> T) -> Vec<T> {
        self.list_by_place(|reader, _| item(reader))
    }

    #[inline(always)]
    fn list_by_place<T: 'static>(&mut self, item: impl Fn(&mut Self, usize) -> T) -> Vec<T> {
        let length = self.length();
        if length == 0 {
            return Vec::new();
        }
        // Each item takes a byte at least.
        if length > self.rest.len() {
            self.fail();
            return Vec::new();
        }
        let lists = self.lists;
        lend_list(lists.alloc_slice_fill_with(length, |place| item(self, place)))
    }

    #[inline(always)]
    fn text(&mut self) -> String {
        let length = self.length();
        let ascii = starts_with_ascii(self.rest, length);
        let bytes = self.take(length);
        if !ascii && str::from_utf8(bytes).is_err() {
            self.fail();
            return String::new();
        }
        lend(bytes)
    }

    #[inline(always)]
    fn length(&mut self) -> usize {
        let length = self.varint();
        self.narrow(length) as usize
    }

    /// Many are of two bytes: indices of nodes, and what is in thousandths.
    #[inline(always)]
    fn u32(&mut self) -> u32 {
        if let Some((&[low @ 0x80..=u8::MAX, high @ 0..0x80], rest)) = self.rest.split_first_chunk() {
            self.rest = rest;
            return u32::from(low & 0x7f) | u32::from(high) << 7;
        }
        let value = self.varint();
        self.narrow(value)
    }

    #[inline(always)]
    fn narrow(&mut self, value: u64) -> u32 {
        u32::try_from(value).unwrap_or_else(|_| {
            self.fail();
            0
        })
    }

    /// Seven bits a byte, the lowest first; the highest bit of a byte tells that one more follows.
    #[inline(always)]
    fn varint(&mut self) -> u64 {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                byte.into()
            }
            _ => {
                let (value, rest) = long_varint(self.rest).unwrap_or_else(|| {
                    self.broken = true;
                    (0, &[])
                });
                self.rest = rest;
                value
            }
        }
    }

    /// One of two, by its number.
    #[inline(always)]
    fn case<T>(&mut self, [first, second]: [T; 2]) -> T {
        match self.byte() {
            0 => first,
            1 => second,
            _ => {
                self.fail();
                first
            }
        }
    }

    #[inline(always)]
    fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> [u8; N] {
        match self.rest.split_first_chunk() {
            Some((bytes, rest)) => {
                self.rest = rest;
                *bytes
            }
            None => {
                self.fail();
                [0; N]
            }
        }
    }

    #[inline(always)]
    fn take(&mut self, length: usize) -> &'static [u8] {
        match self.rest.split_at_checked(length) {
            Some((bytes, rest)) => {
                self.rest = rest;
                bytes
            }
            None => {
                self.fail();
                &[]
            }
        }
    }

    #[inline(always)]
    fn fail(&mut self) {
        (self.rest, self.broken) = (&[], true);
    }
}

/// Whether so many bytes are ASCII; nearly all are, and most are few, so that those that fit a word or four are looked
/// at without a loop. Where it is not quickly told it says no.
#[inline(always)]
fn starts_with_ascii(bytes: &[u8], length: usize) -> bool {
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes) & HIGH_BITS;
    if length <= 8 {
        let within = u64::MAX.checked_shr(64 - 8 * length as u32).unwrap_or(0);
        return bytes.first_chunk().is_some_and(|first| word(first) & within == 0);
    }
    let ends = |bytes: &[u8]| {
        let of = |chunk: Option<&[u8; 8]>| chunk.map_or(HIGH_BITS, word);
        of(bytes.first_chunk()) | of(bytes.last_chunk())
    };
    match bytes.get(..length) {
        Some(bytes) if length <= 16 => ends(bytes) == 0,
        Some(bytes) if length <= 32 => ends(&bytes[..16]) | ends(&bytes[length - 16..]) == 0,
        Some(bytes) => bytes.is_ascii(),
        None => false,
    }
}

/// Whether bytes of one length are the same, where they fit two or four words; else it says no.
#[inline(always)]
fn same(one: &[u8], other: &[u8]) -> bool {
    let word = |bytes: &[u8]| bytes.first_chunk().map(|word| u64::from_le_bytes(*word));
    let equal = |place: usize| word(&one[place..]) == word(&other[place..]);
    match one.len() {
        8..=16 => equal(0) & equal(one.len() - 8),
        17..=32 => equal(0) & equal(8) & equal(one.len() - 16) & equal(one.len() - 8),
        _ => false,
    }
}

/// A number of more than seven bits, and what follows it.
fn long_varint(bytes: &'static [u8]) -> Option<(u64, &'static [u8])> {
    let (mut value, mut shift) = (0, 0);
    for (place, byte) in bytes.iter().enumerate() {
        let bits = u64::from(byte & 0x7f);
        if shift > 63 || bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[place + 1..]));
        }
        shift += 7;
    }
    None
}

/// A string that is these bytes, not a copy of them. They must be UTF-8. It may be read and cloned, but neither changed
/// nor dropped: all of them end up in an [`Asked`].
#[inline]
#[expect(unsafe_code, reason = "a copy of each string would take longer than some strategies do")]
fn lend(text: &'static [u8]) -> String {
    if text.is_empty() {
        return String::new();
    }
    // SAFETY: pointer and length are those of a slice that lives as long as the program, and the caller saw that it is
    // UTF-8. That it was not allocated by itself matters to those who free, grow or write it alone: `Asked` gives
    // nothing but shared references to the question and never drops it, and `Reader` and its arena drop nothing.
    unsafe { String::from_raw_parts(text.as_ptr().cast_mut(), text.len(), text.len()) }
}

/// A list that is these items, not a copy of them; as with [`lend`].
#[inline]
#[expect(unsafe_code, reason = "to allocate each list by itself would take longer than some strategies do")]
fn lend_list<T: 'static>(items: &'static mut [T]) -> Vec<T> {
    // SAFETY: as in `lend`: pointer and length are those of a slice that nobody else has and that lives as long as the
    // program, and the list is neither changed nor dropped.
    unsafe { Vec::from_raw_parts(items.as_mut_ptr(), items.len(), items.len()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testkit::random_cluster;

    fn pack(question: &Question) -> &'static [u8] {
        postcard::to_allocvec(question).unwrap().leak()
    }

    /// A question with strings of all lengths about a word's, some of them not ASCII.
    fn question(seed: u64) -> Question {
        let mut question = random_cluster(seed, 20, 30);
        for (index, node) in question.nodes.iter_mut().enumerate() {
            node.name = "n".repeat(index);
            node.attributes.push(("o\u{f6}".repeat(index % 7), "\u{6f22}".repeat(index % 5)));
            // Nodes in a row have adapters that differ in the address alone, or in what is quickly compared or is not.
            for adapter in &mut node.adapters {
                adapter.name = "e".repeat(index / 3 * 6);
                adapter.mtu = 1_500 + index as u32 / 2;
                adapter.attributes = vec![Default::default(); usize::from(index.is_multiple_of(5))];
            }
        }
        question.attributes = vec![(String::new(), "end".into())];
        question
    }

    #[test]
    fn reads_what_postcard_writes() {
        for seed in 0..50 {
            let question = question(seed);
            assert_eq!(*read(pack(&question)).unwrap(), question);
        }
    }

    #[test]
    fn a_question_that_is_cut_is_none() {
        let packed = pack(&question(1));
        for length in 0..packed.len() {
            assert!(read(&packed[..length]).is_none(), "{length}");
        }
    }

    #[test]
    fn numbers_and_texts_that_are_none_are_refused() {
        let empty = pack(&Question::default());
        assert_eq!(empty, [0; 5]);
        for broken in [
            // A list of more than 32 bits can count, a number of more than 64 bits, text that is no UTF-8.
            &[0xff, 0xff, 0xff, 0xff, 0x7f][..],
            &[0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0],
            &[0, 0, 0, 0, 1, 1, 0xff, 0],
            &[0, 0, 0, 0, 1, 0, 9, b'a', b'a', b'a', b'a', b'a', b'a', b'a', b'a', 0x80],
        ] {
            assert!(read(broken.to_vec().leak()).is_none(), "{broken:?}");
        }
    }

    #[test]
    fn one_byte_that_is_not_ascii_is_seen_wherever_it_is() {
        for length in 0..=40 {
            for following in [0, 1, 40] {
                let mut bytes = vec![b'a'; length + following];
                // A short text within the last word of what there is takes the slow way.
                let told = length > 8 || bytes.len() >= 8;
                assert_eq!(starts_with_ascii(&bytes, length), told, "{length}");
                bytes[length..].fill(0xff);
                assert_eq!(starts_with_ascii(&bytes, length), told, "{length}");
                for place in 0..length {
                    bytes[place] = 0x80;
                    assert!(!starts_with_ascii(&bytes, length), "{place} of {length}");
                    bytes[place] = b'a';
                }
            }
        }
    }

    proptest! {
        #[test]
        fn where_postcard_reads_so_does_this(seed: u64, place: prop::sample::Index, byte: u8) {
            let mut packed = postcard::to_allocvec(&question(seed)).unwrap();
            let place = place.index(packed.len());
            packed[place] = byte;
            let packed: &'static [u8] = packed.leak();
            let read = read(packed);
            if let Ok(expected) = postcard::from_bytes::<Question>(packed) {
                prop_assert_eq!(&*read.expect("postcard reads it"), &expected);
            }
        }
    }
}
