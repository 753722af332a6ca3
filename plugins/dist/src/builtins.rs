//! Written by plugins/build.

use overlan_contract::Kind;

use crate::Builtin;

/// Every shipped policy, by kind, then name.
pub const BUILTINS: &[Builtin] = &[
    Builtin {
        name: "balanced",
        kind: Kind::Assignment,
        wasm: include_bytes!("../balanced.wasm"),
        sha256: "083fb0e8036182e17dbccda217ee8630b6b7c2bf15a5abd621111b2ed3535f48",
        summary: "Least loaded node first, moving as little as balance allows; standbys on other subnets",
    },
    Builtin {
        name: "bounded-load",
        kind: Kind::Assignment,
        wasm: include_bytes!("../bounded-load.wasm"),
        sha256: "db3e495dd2c4ddf79da1a23186b7c11d9a136fec52ed3b76cd37ec6db25eaf83",
        summary: "Consistent hashing with bounded loads: few moves, and nobody bears more than the average and a slack",
    },
    Builtin {
        name: "rendezvous",
        kind: Kind::Assignment,
        wasm: include_bytes!("../rendezvous.wasm"),
        sha256: "7c420c6f42e7799c70b38942f9fdc879ffba03a8921e09638da6c6532510c6af",
        summary: "Weighted rendezvous hashing: duties by adapter speed and class; a lost node moves its own duties only",
    },
    Builtin {
        name: "spread",
        kind: Kind::Assignment,
        wasm: include_bytes!("../spread.wasm"),
        sha256: "c5bbbf01ac9659d6d0641dde37fbe8ba6253e927dd371dfaa2a6a674e00083ba",
        summary: "Owner and standbys over distinct sites, racks, routers and subnets",
    },
    Builtin {
        name: "sticky",
        kind: Kind::Assignment,
        wasm: include_bytes!("../sticky.wasm"),
        sha256: "7cc23094f865b27e487faca56c88716b3e4374f2be702ab92e56db16ce4d3e88",
        summary: "Keeps the plan: moves what must, then a bounded share to even out, first onto nodes that stand by already",
    },
    Builtin {
        name: "weighted",
        kind: Kind::Assignment,
        wasm: include_bytes!("../weighted.wasm"),
        sha256: "af01accf392028241452f3b63b533bc7a02e01560023228bd580867e4efe3e60",
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
