//! Somebody who holds the keys of a member and keeps no rule.

use std::time::Duration;

use overlan_core::crypto::{Aead as _, Attempt, Crypto as _};
use overlan_seal::{Cipher, Seal};
use overlan_wire::frame::Frames;
use overlan_wire::packet::CLUSTER_HEADER;
use overlan_wire::{BootId, Frame, Header, Kind, NodeId, PacketNumber, PathId, Reader, SessionId};

use crate::World;

/// Above what any member of a test sends or opens.
const BEYOND: u64 = 1 << 20;
/// How long an answer to an opening may take.
const PATIENCE: Duration = Duration::from_millis(10);

/// Seals what it likes as a member whose own core is stopped. Its datagrams come from that member's first address.
pub struct Insider {
    /// The member's keys.
    pub seal: Seal,
    /// The member's boot.
    pub boot: BootId,
    /// The number of the last cluster datagram.
    pub counter: u64,
    index: usize,
    id: NodeId,
    number: u64,
    session: Option<(SessionId, Cipher)>,
}

impl Insider {
    /// Takes the place of a member, which is stopped.
    pub fn take_over(world: &mut World, index: usize) -> Self {
        let (seal, boot) = world.credentials(index);
        world.kill(index);
        let id = world.members[index].id;
        Insider { seal, boot, index, id, counter: BEYOND, number: BEYOND, session: None }
    }

    /// Sends a member a cluster datagram of these frames in the name of a boot.
    pub fn cluster(&mut self, world: &mut World, name: BootId, to: usize, frames: &[u8]) {
        let key = self.seal.active_key();
        let cipher = self.seal.cluster_cipher(key, name).expect("it holds the cluster key");
        self.counter += 1;
        let mut datagram = Vec::new();
        Header { key, kind: Kind::Cluster { boot: name, counter: self.counter } }.emit(&mut datagram);
        let (_, receiver) = world.credentials(to);
        let associated = [&datagram[..], &receiver.0].concat();
        let header = datagram.len();
        datagram.extend_from_slice(frames);
        let tag = cipher.seal(nonce(0, self.counter), &associated, &mut datagram[header..]);
        datagram.extend_from_slice(&tag);
        world.inject(self.index, to, &datagram);
    }

    /// As [`cluster`](Self::cluster), one frame in the member's own name.
    pub fn cluster_frame(&mut self, world: &mut World, to: usize, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.emit(&mut bytes);
        self.cluster(world, self.boot, to, &bytes);
    }

    /// Opens a session with a member, in its own name. Whether that member answered.
    pub fn open(&mut self, world: &mut World, to: usize) -> bool {
        let (peer, boot) = world.credentials(to);
        self.number += 1;
        let attempt = Attempt {
            key: self.seal.active_key(),
            initiator: (self.id, self.boot),
            responder: (world.members[to].id, boot),
            number: self.number,
            session: SessionId(self.number),
            suites: &[3],
        };
        let opened = self.seal.open(&attempt, &peer.exchange_key(), [5; 32]);
        let (mut handshake, request) = opened.expect("members' keys are good");
        let Attempt { number, session, suites, .. } = attempt;
        world.members[self.index].missed.clear();
        let frame = Frame::SessionOpen { number, session, cookie: [0; 16], suites, request };
        self.cluster_frame(world, to, &frame);
        world.run_for(PATIENCE);
        let answers = world.members[self.index].missed.iter_mut().filter_map(|datagram| {
            let header = Header::parse(&mut Reader::new(datagram)).ok()?;
            let Kind::Cluster { boot, counter } = header.kind else { return None };
            let cipher = self.seal.cluster_cipher(header.key, boot)?;
            let (head, sealed) = datagram.split_at_mut_checked(CLUSTER_HEADER)?;
            let associated = [&*head, &self.boot.0].concat();
            let len = cipher.open(nonce(0, counter), &associated, sealed)?;
            Frames::new(&sealed[..len]).flatten().find_map(|frame| match frame {
                Frame::SessionAccept { answer, .. } => Some(answer),
                _ => None,
            })
        });
        let Some(answer) = answers.last() else { return false };
        let finished = self.seal.finish(&mut handshake, &answer);
        self.session = finished.map(|(session, keys)| (session, keys.send));
        self.session.is_some()
    }

    /// Whether a session was opened.
    pub fn is_open(&self) -> bool {
        self.session.is_some()
    }

    /// Sends a member a data datagram of these frames under the session that was opened last.
    ///
    /// # Panics
    /// No session is open.
    pub fn data(&self, world: &mut World, to: usize, path: u32, number: u64, frames: &[u8]) {
        let (session, cipher) = self.session.as_ref().expect("a session is open");
        let kind = Kind::Data { session: *session, path: PathId(path), number: PacketNumber(number) };
        let mut datagram = Vec::new();
        Header { key: self.seal.active_key(), kind }.emit(&mut datagram);
        let header = datagram.len();
        datagram.extend_from_slice(frames);
        let (head, text) = datagram.split_at_mut(header);
        let tag = cipher.seal(nonce(path, number), head, text);
        datagram.extend_from_slice(&tag);
        world.inject(self.index, to, &datagram);
    }
}

fn nonce(path: u32, number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&path.to_be_bytes());
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}
