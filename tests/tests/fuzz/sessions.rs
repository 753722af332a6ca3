//! The session state machine, with all of the engine round it: two members and an insider act out a script, which may
//! break every rule that keys do not enforce. Nothing panics or spins, no message arrives twice, none is reported
//! delivered that did not arrive; and once the network heals and both members have restarted, they talk again.

use std::time::Duration;

use overlan_core::{Config, Fate, Outgoing};
use overlan_seal::Keyring;
use overlan_sim::{Insider, Network, World};
use overlan_tests::corpus::from_hex;
use overlan_tests::fuzz::fuzz_costly;
use overlan_wire::frame::{Accepted, RunWriter};
use overlan_wire::{Ack, BootId, Fragment, Frame, MessageId, MessageMode, PacketNumber, PathId, SessionId};

/// A decoder takes so many inputs in the time of one script.
const COST: u64 = 2_000;
const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
/// The insider is the third.
const INSIDER: usize = 2;
/// What broke once: something was due, again and again, that a session which had ended with its key could not send.
const FOUND: [&str; 3] = [
    "00000300010401000000090001021e000900010a0200010a20000700000100000a0900000c00010a \
     20000700000100000000000300010401000100000900010a020001000a",
    "a2690c6e78035b91972a140ad7c67ff066657d9d3432dd5948327f54e242162effee586064fae4d6 \
     c18360f652c4497ee231bc271dd1040dcf0f2432661b065a5ed465b7420d892729173fb258b55ccc \
     6ecfd1ee5b79d9d8f220df8a41fdd5e6f70e4682252235e9939360ba3337864cc42d9a1e02000503 \
     000000000300010401001e00000900010a02000a",
    "f6ee1112120beae351d4a7f37e212be4cc7f56fca5db7b832501bfb298373250c45749524a8825d9 \
     178edc9674f2b13af9d7a3bb12bf86cdb5cc7f56fca5db7b832501bfb298373250c45749524b8825 \
     c84c6ef0fad7f52658ff",
];
/// Payloads are eight bytes longer. The last two about fill a datagram of a 1,500-byte MTU.
const SIZES: [usize; 8] = [0, 8, 200, 1_200, 5_000, 60_000, 1_392, 1_395];

#[test]
fn sessions() {
    let rings = rings();
    fuzz_costly("sessions", COST, &corpus(), |script| Play::new(&rings).act(script));
}

/// The states of a keyring while its key is changed.
fn rings() -> [Keyring; 4] {
    let old = Keyring::generate(core::array::from_fn(|index| index as u8));
    let mut both = old.clone();
    let new = both.add(core::array::from_fn(|index| 0x80 | index as u8)).expect("a secret");
    let mut promoted = both.clone();
    promoted.promote(new).expect("it was added");
    let mut retired = promoted.clone();
    retired.retire(old.active()).expect("it is not active");
    [old, both, promoted, retired]
}

struct Play<'a> {
    rings: &'a [Keyring; 4],
    world: World,
    insider: Insider,
    /// Messages sent so far, by either.
    sent: u64,
}

/// The script from here on; it ends with zeros.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first.into()
    }

    /// A length and so many bytes.
    fn bytes(&mut self) -> &'a [u8] {
        let len = self.byte().min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }
}

impl<'a> Play<'a> {
    fn new(rings: &'a [Keyring; 4]) -> Self {
        let mut world = World::new(1, Network::with_delay(MILLISECOND));
        let members: [(&str, [&str; 2]); 3] = [
            ("a", ["10.1.1.2", "10.1.2.2"]),
            ("b", ["10.2.1.2", "10.2.2.2"]),
            ("insider", ["10.3.1.2", "10.3.2.2"]),
        ];
        for (index, (name, addresses)) in members.iter().enumerate() {
            let mut config = Config::new(*name, BootId::default(), [0; 32]);
            let others = members.iter().filter(|(other, _)| other != name);
            config.seeds =
                others.map(|(_, [first, _])| format!("{first}:7400").parse().expect("an address")).collect();
            world.add_with(config, addresses);
            world.set_keyring(index, rings[0].clone());
        }
        assert!(world.run_until(30 * SECOND, World::converged), "the members do not meet");
        let insider = Insider::take_over(&mut world, INSIDER);
        Play { rings, world, insider, sent: 0 }
    }

    fn act(mut self, script: &[u8]) {
        let mut script = Script(script);
        while !script.0.is_empty() {
            self.scene(&mut script);
        }
        self.end();
    }

    fn scene(&mut self, script: &mut Script<'_>) {
        let (act, first, second) = (script.byte() % 14, script.byte(), script.byte());
        let (member, other) = (first & 1, 1 - (first & 1));
        let world = &mut self.world;
        match act {
            0 => {
                let mode = [MessageMode::Reliable, MessageMode::Ordered][second & 1];
                let few = 1 + (first as u64 >> 1 & 7);
                match first >> 4 & 3 {
                    0 => self.send(member, mode, second >> 1, few, None),
                    1 => self.send(member, MessageMode::Unreliable, second >> 1, few, None),
                    2 => self.send(member, mode, second >> 1, 20, Some(20 * MILLISECOND)),
                    _ => {
                        let unwanted = self.sent + few;
                        self.send(member, mode, second >> 1, 20, None);
                        self.world.cancel(member, other, unwanted..unwanted + 5);
                    }
                }
            }
            1 => world.run_for(second as u32 * Duration::from_micros(100)),
            2 => world.run_for(second as u32 * 20 * MILLISECOND),
            3 if world.members[member].core.is_some() => world.kill(member),
            3 => world.start(member),
            4 => world.set_keyring(member, self.rings[second % 4].clone()),
            5 => {
                world.network.loss_ppm = (first as u32 % 4) * 100_000;
                world.network.duplicate_ppm = (first as u32 >> 2 & 3) * 100_000;
                world.network.corrupt_ppm = (first as u32 >> 4 & 3) * 50_000;
                world.network.jitter = second as u32 * MILLISECOND / 4;
            }
            6 if second & 1 == 0 => world.network.heal(),
            6 => {
                let ends = ["10.1.1.2", "10.1.2.2", "10.2.1.2", "10.2.2.2"];
                let [from, to] =
                    [first % 4, (second >> 1) % 4].map(|end| ends[end].parse().expect("an address"));
                world.network.cut.insert((from, to));
            }
            7 if world.members[member].core.is_some() => {
                world.set_adapter(member, second >> 1 & 1, second & 1 == 1)
            }
            8 if world.members[member].core.is_some() => {
                world.pause(member, second as u32 * 10 * MILLISECOND)
            }
            9 => drop(self.insider.open(world, member)),
            10 if self.insider.is_open() => {
                let frames = script.bytes();
                self.insider.data(world, member, first as u32 >> 1, second as u64, frames);
            }
            11 => self.insider.cluster(world, self.insider.boot, member, script.bytes()),
            // In the other's name.
            12 => {
                let (_, boot) = world.credentials(other);
                self.insider.cluster(world, boot, member, script.bytes());
            }
            13 => {
                let boot = [self.insider.boot, world.credentials(other).1][second & 1];
                let mut bytes = Vec::new();
                session_frame(script).emit(&mut bytes);
                self.insider.cluster(world, boot, member, &bytes);
            }
            _ => {}
        }
    }

    /// Sends some messages together.
    fn send(&mut self, from: usize, mode: MessageMode, size: usize, count: u64, lifetime: Option<Duration>) {
        let message = |token: u64| {
            let mut payload = token.to_be_bytes().to_vec();
            payload.resize(8 + SIZES[size % SIZES.len()], 0);
            payload.into()
        };
        let payloads = (self.sent..self.sent + count).map(message).collect();
        let (stream, redelivered, token) = (0, false, self.sent);
        let outgoing = Outgoing { mode, stream, redelivered, payloads, token, lifetime };
        self.world.send_batch(from, 1 - from, outgoing);
        self.sent += count;
    }

    /// All is well again: so must be what comes of it.
    fn end(mut self) {
        let world = &mut self.world;
        world.network = Network::with_delay(MILLISECOND);
        for member in 0..INSIDER {
            // Forged counters of stateless datagrams count for one boot.
            world.kill(member);
            world.set_keyring(member, self.rings[0].clone());
            world.start(member);
            (0..2).for_each(|adapter| world.set_adapter(member, adapter, true));
        }
        assert!(world.run_until(120 * SECOND, World::converged), "the members do not meet again");
        let last = self.sent;
        (0..INSIDER).for_each(|from| self.send(from, MessageMode::Ordered, 1, 1, None));
        let world = &mut self.world;
        let delivered = |world: &World| {
            let fates = |from: usize| world.members[from].fates.get(&(last + from as u64));
            (0..INSIDER).all(|from| fates(from).is_some_and(|fates| fates[..] == [Fate::Delivered]))
        };
        assert!(world.run_until(30 * SECOND, delivered), "messages do not arrive");
        for from in 0..INSIDER {
            let id = world.members[from].id;
            let received: Vec<u64> = world.members[1 - from]
                .received
                .iter()
                .filter(|message| message.from == id)
                .map(|message| u64::from_be_bytes(message.payload[..8].try_into().expect("a token")))
                .collect();
            let times = |token: u64| received.iter().filter(|&&arrived| arrived == token).count();
            for token in 0..self.sent {
                assert!(times(token) <= 1, "message {token} arrived {} times", times(token));
            }
            for (token, fates) in &world.members[from].fates {
                assert_eq!(fates.len(), 1, "message {token} ended as {fates:?}");
                assert!(fates[0] != Fate::Delivered || times(*token) == 1, "message {token} did not arrive");
            }
        }
    }
}

fn session_frame(script: &mut Script<'_>) -> Frame<'static> {
    let (kind, number, session) = (script.byte(), script.byte() as u64, SessionId(script.byte() as u64));
    let fill = script.byte() as u8;
    match kind % 3 {
        0 => {
            let cookie = [fill & 1; 16];
            Frame::SessionOpen { number, session, cookie, suites: &[3, 1, 2, 99], request: [fill; 48] }
        }
        1 => Frame::SessionAccept { echo: session, answer: [fill; 57] },
        _ => Frame::SessionCookie { echo: session, cookie: [fill; 16] },
    }
}

/// Scripts to start from: each act alone in some traffic, and well-formed frames for the insider to send.
fn corpus() -> Vec<Vec<u8>> {
    let traffic =
        [[0, 0, 3], [0, 1, 4], [1, 0, 30], [0, 12, 9], [0, 0x35, 10], [0, 0x1c, 3], [0, 0x21, 2], [2, 0, 10]]
            .concat();
    let around = |acts: &[u8]| [&traffic[..], acts, &traffic].concat();
    let mut corpus = vec![
        around(&[]),
        around(&[3, 0, 0, 2, 0, 5, 3, 0, 0]),
        around(&[4, 0, 1, 4, 1, 1, 4, 0, 2, 4, 1, 2, 2, 0, 50, 4, 0, 3, 4, 1, 3]),
        around(&[5, 0x55, 40, 6, 0, 5, 6, 2, 1]),
        around(&[7, 0, 0, 2, 0, 30, 7, 0, 1, 8, 1, 200]),
        around(&[9, 0, 0, 13, 0, 0, 0, 9, 9, 0, 13, 1, 1, 1, 9, 9, 0, 13, 0, 1, 2, 9, 9, 1]),
    ];
    corpus.extend(FOUND.iter().map(|found| from_hex(found).expect("hexadecimal digits")));
    let fragment = Fragment {
        message: MessageId(1),
        mode: MessageMode::Ordered,
        redelivered: false,
        stream: 0,
        order: 1,
        total: 90,
        offset: 10,
        payload: &[7; 60],
    };
    let ranges = [(PacketNumber(0), PacketNumber(3))].into_iter().collect();
    let frames = [
        Frame::Ping { token: 1, padding: 3 },
        Frame::Pong { token: 1 },
        Frame::Ack(Ack { path: PathId(0), delay_us: 9, ce: 0, ranges }),
        Frame::Fragment(fragment),
        Frame::Accepted(Accepted {
            stream: 0,
            floor: MessageId(1),
            credit: 1 << 25,
            credit_in_all: 1 << 25,
            bitmap: &[6],
        }),
        Frame::Membership(&[1; 40]),
        Frame::Want(vec![Default::default()]),
    ];
    let mut run = Vec::new();
    let mut writer = RunWriter::start(&mut run, 0, MessageMode::Ordered, false, MessageId(0), 0);
    [&[7; 8][..], &[], &[8; 20]].iter().for_each(|payload| writer.push(payload));
    writer.finish();
    let emitted = frames.iter().map(|frame| {
        let mut bytes = Vec::new();
        frame.emit(&mut bytes);
        bytes
    });
    for mut bytes in emitted.chain([run]) {
        bytes.insert(0, bytes.len() as u8);
        for act in [10, 11, 12] {
            corpus.push(around(&[&[9, 0, 0, act, 0, 1], &bytes[..]].concat()));
        }
    }
    corpus
}
