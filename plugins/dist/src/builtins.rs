//! Written by plugins/build.

use overlan_contract::Kind;

use crate::Builtin;

/// Every shipped policy, by kind, then name.
pub const BUILTINS: &[Builtin] = &[
    Builtin {
        name: "balanced",
        kind: Kind::Assignment,
        wasm: include_bytes!("../balanced.wasm"),
        sha256: "0e7d0f09d1d09ecdcbc0bac7bcb2160c5fdcaf767339c1e5e7ee157011f2f98b",
        summary: "Least loaded node first, moving as little as balance allows; standbys on other subnets",
    },
    Builtin {
        name: "bounded-load",
        kind: Kind::Assignment,
        wasm: include_bytes!("../bounded-load.wasm"),
        sha256: "4258543c33821a15ebcdaf3f2fe268f75d2b2ab4156a1dd05ec7b8924788d852",
        summary: "Consistent hashing with bounded loads: few moves, and nobody bears more than the average and a slack",
    },
    Builtin {
        name: "rendezvous",
        kind: Kind::Assignment,
        wasm: include_bytes!("../rendezvous.wasm"),
        sha256: "64e4e761c442220f78add9463b3db1d64a16620110c5c0d7a936a57bc494fae3",
        summary: "Weighted rendezvous hashing: duties by adapter speed and class; a lost node moves its own duties only",
    },
    Builtin {
        name: "spread",
        kind: Kind::Assignment,
        wasm: include_bytes!("../spread.wasm"),
        sha256: "f667889c636fa2124e0183b9e725eaffd3cb265fc0302d1c3f04b5e0e0ac503f",
        summary: "Owner and standbys over distinct sites, racks, routers and subnets",
    },
    Builtin {
        name: "sticky",
        kind: Kind::Assignment,
        wasm: include_bytes!("../sticky.wasm"),
        sha256: "6b804f779c5c5171d563278b91e3b6130e7fdc6caf7dfb696e414be8f801b64e",
        summary: "Keeps the plan: moves what must, then a bounded share to even out, first onto nodes that stand by already",
    },
    Builtin {
        name: "weighted",
        kind: Kind::Assignment,
        wasm: include_bytes!("../weighted.wasm"),
        sha256: "d83a18b2dc1d6e243042b37b426a113fa30c081ad65562fbf19750d39969c626",
        summary: "Rendezvous hashing by capacity, speed and class of service; capacity 0 drains a node",
    },
    Builtin {
        name: "conservative",
        kind: Kind::Sizing,
        wasm: include_bytes!("../conservative.wasm"),
        sha256: "8af086595a19231171afe1f93ba6899830c85222e356be86afe27eb6ca5d26cf",
        summary: "Datagrams of 1,200 bytes, which every path carries",
    },
    Builtin {
        name: "mtu-fit",
        kind: Kind::Sizing,
        wasm: include_bytes!("../mtu-fit.wasm"),
        sha256: "8fb0a961fb72e79e364f82780b8ebf99b7b2565fa14c3dd2b8b828a6b873c09b",
        summary: "Datagrams as large as the adapters' and the path's MTU allow",
    },
    Builtin {
        name: "fast",
        kind: Kind::Failover,
        wasm: include_bytes!("../fast.wasm"),
        sha256: "c1d98be113650ffdc10aa55f75d3e6ef72f3956510e8b8d04ed4c2d40b8487d7",
        summary: "Probes each 200 ms, reply timeout from the round-trip time, three misses, doubling hold-down",
    },
    Builtin {
        name: "knet-compat",
        kind: Kind::Failover,
        wasm: include_bytes!("../knet-compat.wasm"),
        sha256: "3b5c6a3ffaac5c712d22131e1850e521b0a0cfe1e4964bc2d109a2795d1e3510",
        summary: "The timing constants of kronosnet (libknet), for comparison and for migration",
    },
];
