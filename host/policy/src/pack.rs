//! Questions of assignment in one piece, for policies that take them so (`wit/packed.wit`).
//!
//! What is written is postcard's encoding. postcard itself takes some three nanoseconds for each of the thirty thousand
//! texts and numbers that a question of a thousand nodes has: its calls keep the place to write at in memory. Here it
//! stays in a register: whatever is written takes the place and gives the next.

use std::net::IpAddr;

use overlan_contract::assignment::{Node, Question, Responsibility};
use overlan_contract::{Adapter, AdapterStatus, Attributes};

/// The most bytes that a number takes, or what is not a text or a list.
const NUMBER_BYTES: usize = 10;
/// Numbers and other small parts of a record, lengths included, and then some.
const SMALL_PARTS: usize = 16;
/// The longest text that is copied without a call: a node's id.
const SHORT_BYTES: usize = 32;

/// Packs a question into memory that may have served another: room for a new one would have to be zeroed first.
pub(crate) fn pack<'a>(question: &Question, room: &'a mut Vec<u8>) -> &'a [u8] {
    let Question { nodes, responsibilities, previous, seed, attributes } = question;
    let mut writer = Writer { bytes: room, length: 0 };
    writer.list(nodes, node_room, node);
    writer.list(responsibilities, duty_room, duty);
    writer.list(previous, |owners| NUMBER_BYTES * (1 + owners.len()), |room, each| owners(room, each));
    writer.write(NUMBER_BYTES, |room| number(room, 0, *seed));
    writer.write(attributes_room(attributes), |room| pairs(room, 0, attributes));
    let Writer { bytes, length } = writer;
    &bytes[..length]
}

/// What is written so far, and room for more.
struct Writer<'a> {
    /// Anything from `length` on.
    bytes: &'a mut Vec<u8>,
    length: usize,
}

impl Writer<'_> {
    /// Writes at most `most` bytes.
    #[inline(always)]
    fn write(&mut self, most: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        if self.bytes.len() - self.length < most {
            self.grow(most);
        }
        self.length += write(&mut self.bytes[self.length..]);
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        /// Of a question of few nodes.
        const LEAST_BYTES: usize = 4 << 10;
        self.bytes.resize((self.length + more).max(2 * self.bytes.len()).max(LEAST_BYTES), 0);
    }

    #[inline(always)]
    fn list<T>(&mut self, list: &[T], most: impl Fn(&T) -> usize, item: impl Fn(&mut [u8], &T) -> usize) {
        self.write(NUMBER_BYTES, |room| number(room, 0, list.len() as u64));
        for each in list {
            self.write(most(each), |room| item(room, each));
        }
    }
}

fn attributes_room(attributes: &Attributes) -> usize {
    let texts: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    NUMBER_BYTES * (1 + 2 * attributes.len()) + texts
}

fn node_room(node: &Node) -> usize {
    let adapters = node.adapters.iter().map(|adapter| {
        let texts = adapter.name.len() + adapter.kind.len() + adapter.class_of_service.len();
        NUMBER_BYTES * SMALL_PARTS + texts + attributes_room(&adapter.attributes)
    });
    let texts = node.id.len() + node.name.len();
    NUMBER_BYTES * SMALL_PARTS + texts + adapters.sum::<usize>() + attributes_room(&node.attributes)
}

fn duty_room(duty: &Responsibility) -> usize {
    NUMBER_BYTES * SMALL_PARTS + duty.name.len() + attributes_room(&duty.requires)
}

#[inline(always)]
fn node(room: &mut [u8], node: &Node) -> usize {
    let Node { id, name, live, adapters, attributes } = node;
    let at = text(room, 0, id);
    let at = text(room, at, name);
    let at = byte(room, at, (*live).into());
    let at = number(room, at, adapters.len() as u64);
    let at = adapters.iter().fold(at, |at, of| adapter(room, at, of));
    pairs(room, at, attributes)
}

#[inline(always)]
fn adapter(room: &mut [u8], at: usize, adapter: &Adapter) -> usize {
    let Adapter {
        name,
        kind,
        address,
        prefix_length,
        mtu,
        speed,
        class_of_service,
        dscp,
        status,
        attributes,
    } = adapter;
    let at = text(room, at, name);
    let at = text(room, at, kind);
    let at = match address {
        IpAddr::V4(address) => array(room, at, 0, address.octets()),
        IpAddr::V6(address) => array(room, at, 1, address.octets()),
    };
    let at = byte(room, at, *prefix_length);
    let at = number(room, at, (*mtu).into());
    let at = number(room, at, (*speed).into());
    let at = text(room, at, class_of_service);
    let at = byte(room, at, *dscp);
    let status = match status {
        AdapterStatus::Up => 0,
        AdapterStatus::Down => 1,
    };
    let at = byte(room, at, status);
    pairs(room, at, attributes)
}

#[inline(always)]
fn duty(room: &mut [u8], duty: &Responsibility) -> usize {
    let Responsibility { name, replicas, weight_milli, requires } = duty;
    let at = text(room, 0, name);
    let at = number(room, at, (*replicas).into());
    let at = number(room, at, (*weight_milli).into());
    pairs(room, at, requires)
}

#[inline(always)]
fn owners(room: &mut [u8], owners: &[u32]) -> usize {
    let at = number(room, 0, owners.len() as u64);
    owners.iter().fold(at, |at, &owner| number(room, at, owner.into()))
}

#[inline(always)]
fn pairs(room: &mut [u8], at: usize, attributes: &Attributes) -> usize {
    let at = number(room, at, attributes.len() as u64);
    attributes.iter().fold(at, |at, (key, value)| {
        let at = text(room, at, key);
        text(room, at, value)
    })
}

#[inline(always)]
fn text(room: &mut [u8], at: usize, text: &str) -> usize {
    let at = number(room, at, text.len() as u64);
    copy(&mut room[at..at + text.len()], text.as_bytes());
    at + text.len()
}

/// Seven bits a byte, the lowest first; the highest bit of a byte tells that one more follows.
#[inline(always)]
fn number(room: &mut [u8], mut at: usize, mut value: u64) -> usize {
    while value >= 0x80 {
        at = byte(room, at, value as u8 | 0x80);
        value >>= 7;
    }
    byte(room, at, value as u8)
}

#[inline(always)]
fn byte(room: &mut [u8], at: usize, byte: u8) -> usize {
    room[at] = byte;
    at + 1
}

#[inline(always)]
fn array<const N: usize>(room: &mut [u8], at: usize, case: u8, array: [u8; N]) -> usize {
    let at = byte(room, at, case);
    room[at..at + N].copy_from_slice(&array);
    at + N
}

/// Copies a text to room of its size. A short one is covered by two words that may overlap.
#[inline(always)]
fn copy(room: &mut [u8], text: &[u8]) {
    match text.len() {
        0 => {}
        1..4 => {
            let (middle, last) = (text.len() / 2, text.len() - 1);
            (room[0], room[middle], room[last]) = (text[0], text[middle], text[last]);
        }
        4..8 => copy_ends::<4>(room, text),
        8..16 => copy_ends::<8>(room, text),
        16..=SHORT_BYTES => copy_ends::<16>(room, text),
        _ => room.copy_from_slice(text),
    }
}

/// Copies the first and the last bytes.
#[inline(always)]
fn copy_ends<const N: usize>(room: &mut [u8], text: &[u8]) {
    if let (Some(to), Some(from)) = (room.first_chunk_mut::<N>(), text.first_chunk()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (room.last_chunk_mut::<N>(), text.last_chunk()) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of all lengths about those that are copied differently, and numbers of all sizes.
    fn question() -> Question {
        let text = |length: usize| "0123456789\u{f6}".chars().cycle().take(length).collect::<String>();
        let pairs = |count: usize| (0..count).map(|index| (text(index), text(70 - index))).collect();
        let adapter = |index: usize| Adapter {
            name: text(index),
            kind: text(index / 2),
            address: if index.is_multiple_of(2) {
                [10, 0, 0, index as u8].into()
            } else {
                [index as u8; 16].into()
            },
            prefix_length: u8::MAX >> (index % 8),
            mtu: u32::MAX >> (index % 32),
            speed: u32::MAX >> (31 - index % 32),
            class_of_service: text(index % 5),
            dscp: index as u8,
            status: if index.is_multiple_of(3) { AdapterStatus::Up } else { AdapterStatus::Down },
            attributes: pairs(index % 4),
        };
        let node = |index: usize| Node {
            id: text(32),
            name: text(index),
            live: !index.is_multiple_of(5),
            adapters: (0..index % 7).map(|of| adapter(index + of)).collect(),
            attributes: pairs(index % 70),
        };
        let duty = |index: usize| Responsibility {
            name: text(index),
            replicas: index as u32,
            weight_milli: u32::MAX >> (index % 32),
            requires: pairs(index % 3),
        };
        Question {
            nodes: (0..300).map(node).collect(),
            responsibilities: (0..300).map(duty).collect(),
            previous: (0..200).map(|length| (0..length).map(|owner| owner * owner).collect()).collect(),
            seed: u64::MAX,
            attributes: pairs(9),
        }
    }

    #[test]
    fn packs_as_postcard_does() {
        // A long one first, so that the others find its bytes.
        let mut room = Vec::new();
        for question in [question(), Question::default()] {
            assert_eq!(pack(&question, &mut room), postcard::to_allocvec(&question).unwrap());
        }
        for bits in 0..64 {
            let question = Question { seed: u64::MAX >> bits, ..Question::default() };
            assert_eq!(pack(&question, &mut room), postcard::to_allocvec(&question).unwrap());
        }
    }
}
