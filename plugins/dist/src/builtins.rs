//! Written by plugins/build.

use overlan_contract::Kind;

use crate::Builtin;

/// Every shipped policy, by kind, then name.
pub const BUILTINS: &[Builtin] = &[
    Builtin {
        name: "balanced",
        kind: Kind::Assignment,
        wasm: include_bytes!("../balanced.wasm"),
        sha256: "19b548eecb0c615a343412cd5b6ba95f9ce46697d93c2cbe9bf35051d35a37e3",
        summary: "Least loaded node first, moving as little as balance allows; standbys on other subnets",
    },
    Builtin {
        name: "bounded-load",
        kind: Kind::Assignment,
        wasm: include_bytes!("../bounded-load.wasm"),
        sha256: "52f0cf9843987b72fab5210b89aa6d78ce8348e4f198bb2764caaebcd1d3be93",
        summary: "Consistent hashing with bounded loads: few moves, and nobody bears more than the average and a slack",
    },
    Builtin {
        name: "rendezvous",
        kind: Kind::Assignment,
        wasm: include_bytes!("../rendezvous.wasm"),
        sha256: "850e4f548e7aa0110159d9d27cf47fa2ecfce805c2eae304fb205f5eb68e13dc",
        summary: "Weighted rendezvous hashing: duties by adapter speed and class; a lost node moves its own duties only",
    },
    Builtin {
        name: "spread",
        kind: Kind::Assignment,
        wasm: include_bytes!("../spread.wasm"),
        sha256: "83c5ce79e636546bcb504ad0149a1655d2904b88b535e0a2cd5479306ee58335",
        summary: "Owner and standbys over distinct sites, racks, routers and subnets",
    },
    Builtin {
        name: "sticky",
        kind: Kind::Assignment,
        wasm: include_bytes!("../sticky.wasm"),
        sha256: "f36317f964974d1a9021bec3b59d2c5eed77ed8a1431cbfdf49bccea9eac68a8",
        summary: "Keeps the plan: moves what must, then a bounded share to even out, first onto nodes that stand by already",
    },
    Builtin {
        name: "weighted",
        kind: Kind::Assignment,
        wasm: include_bytes!("../weighted.wasm"),
        sha256: "a88ac37f3ed2b8d73af94e2c94a193cc153145678d72a1dc031816449efb92bc",
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
