//! Written by plugins/build.

use overlan_contract::Kind;

use crate::Builtin;

/// Every shipped policy, by kind, then name.
pub const BUILTINS: &[Builtin] = &[
    Builtin {
        name: "balanced",
        kind: Kind::Assignment,
        wasm: include_bytes!("../balanced.wasm"),
        sha256: "7c8fc420a1c195157efa6ab0bfe1639b9a1b0b94dee86cb3a4b246825874fe08",
        summary: "Least loaded node first, moving as little as balance allows; standbys on other subnets",
    },
    Builtin {
        name: "bounded-load",
        kind: Kind::Assignment,
        wasm: include_bytes!("../bounded-load.wasm"),
        sha256: "5140cb2244a78539380357458a3df5def265e882d3ee5e531022667e448888a2",
        summary: "Consistent hashing with bounded loads: few moves, and nobody bears more than the average and a slack",
    },
    Builtin {
        name: "rendezvous",
        kind: Kind::Assignment,
        wasm: include_bytes!("../rendezvous.wasm"),
        sha256: "dc63c0595e7a4b3a8953439c7b7de41833f0d0a47a49b5e6a7c411b561ac66d5",
        summary: "Weighted rendezvous hashing: duties by adapter speed and class; a lost node moves its own duties only",
    },
    Builtin {
        name: "spread",
        kind: Kind::Assignment,
        wasm: include_bytes!("../spread.wasm"),
        sha256: "51937f30b068b086ca213984b0246232ce94387e7f74e0e82e9d3ed8331eb490",
        summary: "Owner and standbys over distinct sites, racks, routers and subnets",
    },
    Builtin {
        name: "sticky",
        kind: Kind::Assignment,
        wasm: include_bytes!("../sticky.wasm"),
        sha256: "ec45f67af2c30c1b1aed881ef422206cd26c065526796e466d7a0a894127b93d",
        summary: "Keeps the plan: moves what must, then a bounded share to even out, first onto nodes that stand by already",
    },
    Builtin {
        name: "weighted",
        kind: Kind::Assignment,
        wasm: include_bytes!("../weighted.wasm"),
        sha256: "463db177351d4e45ab4de526a18975436e3edf77f790ebe021df0fc821d6f970",
        summary: "Rendezvous hashing by capacity, speed and class of service; capacity 0 drains a node",
    },
    Builtin {
        name: "conservative",
        kind: Kind::Sizing,
        wasm: include_bytes!("../conservative.wasm"),
        sha256: "8a9c1218ef03c5a66f9faacfd8d237558ed51af8eb2e220909486d816e5d1a17",
        summary: "Datagrams of 1,200 bytes, which every path carries",
    },
    Builtin {
        name: "mtu-fit",
        kind: Kind::Sizing,
        wasm: include_bytes!("../mtu-fit.wasm"),
        sha256: "ccf941e3e1d445961e31d786620ae8da64db2c31232969c87e1037c3341584c0",
        summary: "Datagrams as large as the adapters' and the path's MTU allow",
    },
    Builtin {
        name: "fast",
        kind: Kind::Failover,
        wasm: include_bytes!("../fast.wasm"),
        sha256: "8a55a24030db05a509cd06921351364de1e9611af3a075d2a757e32cf6c74543",
        summary: "Probes each 200 ms, reply timeout from the round-trip time, three misses, doubling hold-down",
    },
    Builtin {
        name: "knet-compat",
        kind: Kind::Failover,
        wasm: include_bytes!("../knet-compat.wasm"),
        sha256: "d009be11a54e7fd5ee560e21456180e275d799b8a8a12266cdac097c2c4849dd",
        summary: "The timing constants of kronosnet (libknet), for comparison and for migration",
    },
];
