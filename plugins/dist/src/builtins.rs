//! Written by plugins/build.

use overlan_contract::Kind;

use crate::Builtin;

/// Every shipped policy, by kind, then name.
pub const BUILTINS: &[Builtin] = &[
    Builtin {
        name: "balanced",
        kind: Kind::Assignment,
        wasm: include_bytes!("../balanced.wasm"),
        sha256: "32885d3f01780fcc0dede464e4adc7cd0c8b540cfd36159c3141dab834727092",
        summary: "Least loaded node first, moving as little as balance allows; standbys on other subnets",
    },
    Builtin {
        name: "bounded-load",
        kind: Kind::Assignment,
        wasm: include_bytes!("../bounded-load.wasm"),
        sha256: "c860ac7628a7d3c90194e1cb99fd3352efcee938479d152ef8f88053327e242c",
        summary: "Consistent hashing with bounded loads: few moves, and nobody bears more than the average and a slack",
    },
    Builtin {
        name: "rendezvous",
        kind: Kind::Assignment,
        wasm: include_bytes!("../rendezvous.wasm"),
        sha256: "ab88bf02b8651458f72286addc426dc646810c142f54fdb4c546e1a4dd8b3086",
        summary: "Weighted rendezvous hashing: duties by adapter speed and class; a lost node moves its own duties only",
    },
    Builtin {
        name: "spread",
        kind: Kind::Assignment,
        wasm: include_bytes!("../spread.wasm"),
        sha256: "d0bf09d080d2d48bbf4d46215847306eebb29404ee2d0c520c656df13001f312",
        summary: "Owner and standbys over distinct sites, racks, routers and subnets",
    },
    Builtin {
        name: "sticky",
        kind: Kind::Assignment,
        wasm: include_bytes!("../sticky.wasm"),
        sha256: "d66ffb09c8d692480698fa72fd255aa964930065131a7186b4497555d8df3b3d",
        summary: "Keeps the plan: moves what must, then a bounded share to even out, first onto nodes that stand by already",
    },
    Builtin {
        name: "weighted",
        kind: Kind::Assignment,
        wasm: include_bytes!("../weighted.wasm"),
        sha256: "37488bb8b42745892a7546230dcc540ada6bbfd787d5fae5847daa69c8fe6415",
        summary: "Rendezvous hashing by capacity, speed and class of service; capacity 0 drains a node",
    },
    Builtin {
        name: "conservative",
        kind: Kind::Sizing,
        wasm: include_bytes!("../conservative.wasm"),
        sha256: "f6e13d71c52d15c017ee37c7829d2b1b5c7a4674efa14f81423dcbf85c824f02",
        summary: "Datagrams of 1,200 bytes, which every path carries",
    },
    Builtin {
        name: "mtu-fit",
        kind: Kind::Sizing,
        wasm: include_bytes!("../mtu-fit.wasm"),
        sha256: "9239e55714bef9099c427a1f065765563f5251c6a8ebc927bb3a99d84d172772",
        summary: "Datagrams as large as the adapters' and the path's MTU allow",
    },
    Builtin {
        name: "fast",
        kind: Kind::Failover,
        wasm: include_bytes!("../fast.wasm"),
        sha256: "1c9f23bc59e864b89657bb60b959969487bfec32e52b106de17c8ddf8b935ad9",
        summary: "Probes each 200 ms, reply timeout from the round-trip time, three misses, doubling hold-down",
    },
    Builtin {
        name: "knet-compat",
        kind: Kind::Failover,
        wasm: include_bytes!("../knet-compat.wasm"),
        sha256: "6ec046ac1064014534ec0f2d1e03dff96d1331df558982c0d56752c654fa171a",
        summary: "The timing constants of kronosnet (libknet), for comparison and for migration",
    },
];
