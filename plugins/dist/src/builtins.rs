//! Written by plugins/build.

use overlan_contract::Kind;

use crate::Builtin;

/// Every shipped policy, by kind, then name.
pub const BUILTINS: &[Builtin] = &[
    Builtin {
        name: "balanced",
        kind: Kind::Assignment,
        wasm: include_bytes!("../balanced.wasm"),
        sha256: "3c6c4480bc53866cd93172f292c537df9e52adcae3f27e49fd04a6fc971b7702",
        summary: "Least loaded node first, moving as little as balance allows; standbys on other subnets",
    },
    Builtin {
        name: "bounded-load",
        kind: Kind::Assignment,
        wasm: include_bytes!("../bounded-load.wasm"),
        sha256: "9bdf3439df7d9573bdbc9214eb9a09cd18bb3ba44cda647506884ccd2c6992a0",
        summary: "Consistent hashing with bounded loads: few moves, and nobody bears more than the average and a slack",
    },
    Builtin {
        name: "rendezvous",
        kind: Kind::Assignment,
        wasm: include_bytes!("../rendezvous.wasm"),
        sha256: "971737494ad64797913b324b341956aa675934f0a3f2ca1f7d010a00c0692c6c",
        summary: "Weighted rendezvous hashing: duties by adapter speed and class; a lost node moves its own duties only",
    },
    Builtin {
        name: "spread",
        kind: Kind::Assignment,
        wasm: include_bytes!("../spread.wasm"),
        sha256: "0e1233aa7003523d3b1d619ec8de6172547ac843a1170aa2badbae9393842be6",
        summary: "Owner and standbys over distinct sites, racks, routers and subnets",
    },
    Builtin {
        name: "sticky",
        kind: Kind::Assignment,
        wasm: include_bytes!("../sticky.wasm"),
        sha256: "15d9537ffb30163ba9aa159d32e3142798bb3fd7998b2f16488dd3208454db3f",
        summary: "Keeps the plan: moves what must, then a bounded share to even out, first onto nodes that stand by already",
    },
    Builtin {
        name: "weighted",
        kind: Kind::Assignment,
        wasm: include_bytes!("../weighted.wasm"),
        sha256: "2e7147fbb340c75ed0a2210cf8244070928023e6e4e9052c3c99665d5a678871",
        summary: "Rendezvous hashing by capacity, speed and class of service; capacity 0 drains a node",
    },
    Builtin {
        name: "conservative",
        kind: Kind::Sizing,
        wasm: include_bytes!("../conservative.wasm"),
        sha256: "2478912ddb187bfaeecf299b2b3aff3a15310ee3f84d8d590fb13cb2547c3f31",
        summary: "Datagrams of 1,200 bytes, which every path carries",
    },
    Builtin {
        name: "mtu-fit",
        kind: Kind::Sizing,
        wasm: include_bytes!("../mtu-fit.wasm"),
        sha256: "ec68304b6f4d8216efcc08cf74b83c330063bdd08b626c4199db05b080c18d5f",
        summary: "Datagrams as large as the adapters' and the path's MTU allow",
    },
    Builtin {
        name: "fast",
        kind: Kind::Failover,
        wasm: include_bytes!("../fast.wasm"),
        sha256: "6029ef0809db262b2ef03b9195e30b51ee24552761d733f7b43b7614955d78c2",
        summary: "Probes each 200 ms, reply timeout from the round-trip time, three misses, doubling hold-down",
    },
    Builtin {
        name: "knet-compat",
        kind: Kind::Failover,
        wasm: include_bytes!("../knet-compat.wasm"),
        sha256: "14721ebbc3eb6a09846889161de27f5ac028e6ea13997b67f6234ea0c0130b5d",
        summary: "The timing constants of kronosnet (libknet), for comparison and for migration",
    },
];
