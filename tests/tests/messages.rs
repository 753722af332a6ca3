//! `overlan send` and `overlan listen`: what they tell of each message is true.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use overlan_tests::binary::{finish_fed, overlan, wait_child};
use overlan_tests::cluster::Cluster;
use overlan_tests::json::text;
use overlan_tests::node::Node;
use overlan_tests::traffic::{Listener, Sending, Stream};
use serde_json::Value;

/// A command that has nothing more to do ends by then.
const END: Duration = Duration::from_secs(20);

/// `overlan listen`, and what it prints.
fn listen(node: &Node) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(overlan());
    command.args(["listen", "--json", "--socket"]).arg(node.config.control());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("setpriv can be run");
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    (child, stdout)
}

fn seq(line: &str) -> u64 {
    let line: Value = serde_json::from_str(line).expect("a line of JSON");
    line["seq"].as_u64().expect("a sequence number")
}

/// Ends in the middle of a stream, with messages accepted, in the pipe, and yet to come: each is printed once, by this
/// listener or the next.
#[test]
fn a_stopped_listener_prints_all_that_was_accepted() {
    let cluster = Cluster::started_on_loopback(2, |_, _| {});
    let (from, to) = (&cluster.nodes[0], &cluster.nodes[1]);
    let stream = Stream { count: 20_000, interval_ms: 0, ..Stream::default() };
    let sending = Sending::start(from, "b", stream);
    let mut seen = BTreeSet::new();
    for (signal, status) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let (mut child, mut stdout) = listen(to);
        let mut first = String::new();
        stdout.read_line(&mut first).expect("a first line");
        // Twice, as `timeout` does.
        for _ in 0..2 {
            kill(Pid::from_raw(child.id().cast_signed()), signal).expect("a signal to our own child");
        }
        let rest = stdout.lines().map(|line| line.expect("a line"));
        for line in std::iter::once(first).chain(rest) {
            assert!(seen.insert(seq(&line)), "printed twice: {line}");
        }
        let ended = wait_child(&mut child, END).expect("it ends");
        assert_eq!(ended.code(), Some(status));
    }
    assert!(seen.len() < stream.count, "both ended before the stream did");
    let last = Listener::start(to);
    let rest = last.wait_count(stream.count - seen.len(), END);
    sending.finish();
    seen.extend(rest.iter().map(|arrival| arrival.seq));
    assert_eq!(seen.len(), stream.count);
}

/// What a node told senders as delivered reaches its listener, though the node leaves while that one is slow.
#[test]
fn a_leaving_node_gives_its_listener_what_was_accepted() {
    let mut cluster = Cluster::started_on_loopback(2, |_, _| {});
    let send = |from: &Node, count: &str| {
        from.run(&["send", "--to", "b", "--count", count, "--size", "5000", "--lifetime", "20s"]).ok()
    };
    let (mut child, mut stdout) = listen(&cluster.nodes[1]);
    let signal = |signal| kill(Pid::from_raw(child.id().cast_signed()), signal).expect("our own child");
    send(&cluster.nodes[0], "1");
    stdout.read_line(&mut String::new()).expect("a line");
    signal(Signal::SIGSTOP);
    send(&cluster.nodes[0], "250");
    cluster.nodes[1].signal(Signal::SIGTERM);
    signal(Signal::SIGCONT);
    let seen: Vec<u64> = stdout.lines().map(|line| seq(&line.expect("a line"))).collect();
    assert_eq!(seen, (0..250).collect::<Vec<u64>>());
    assert_eq!(wait_child(&mut child, END).expect("it ends").code(), Some(1), "the node stopped");
    cluster.nodes[1].wait_end(END);
}

/// As in `overlan listen | head -n 1`: what comes after that is left for others.
#[test]
fn nothing_is_accepted_for_a_reader_that_is_gone() {
    let cluster = Cluster::started_on_loopback(2, |_, _| {});
    let (from, to) = (&cluster.nodes[0], &cluster.nodes[1]);
    let send = |count: &str| from.run(&["send", "--to", "b", "--count", count, "--lifetime", "20s"]).ok();
    let (mut child, mut stdout) = listen(to);
    send("1");
    stdout.read_line(&mut String::new()).expect("a line");
    drop(stdout);
    let ended = wait_child(&mut child, END).expect("it ends");
    assert_eq!(ended.code(), Some(0));
    let next = Listener::start(to);
    send("1");
    next.wait_count(1, END);
}

#[test]
fn send_tells_what_became_of_it_at_each_member_by_name() {
    let cluster = Cluster::started_on_loopback(3, |_, _| {});
    let _listener = Listener::connected(&cluster.nodes[1], &cluster.nodes[0]);
    // Nobody listens at c.
    let send = ["send", "--to", "all", "--count", "3", "--lifetime", "1s"];
    let ran = cluster.nodes[0].run(&[&send[..], &["--json"]].concat());
    let said = ran.clone().fails(1);
    assert!(said.contains("3 of 6 not delivered: c did not accept"), "{said}");
    assert!(said.contains("b: 3 delivered, 0 not") && said.contains("c: 0 delivered, 3 not"), "{said}");
    let summary: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let members = summary["members"].as_array().expect("members");
    for (name, delivered, expired) in [("b", 3, 0), ("c", 0, 3)] {
        let member = members.iter().find(|member| text(member, "name") == name).expect("both are told");
        assert_eq!(text(member, "id").len(), 32, "{member}");
        let counts =
            ["sent", "delivered", "expired", "peer_lost_state", "abandoned"].map(|name| &member[name]);
        assert_eq!(counts, [3, delivered, expired, 0, 0], "{member}");
    }
}

#[test]
fn a_line_that_is_too_long_ends_the_input_after_what_came_before() {
    let cluster = Cluster::started_on_loopback(2, |_, _| {});
    let (from, to) = (&cluster.nodes[0], &cluster.nodes[1]);
    let listener = Listener::start(to);
    let input = cluster.folder().join("lines");
    std::fs::write(&input, [b"one\ntwo\n", &vec![b'x'; (16 << 20) + 1][..], b"\nfour\n"].concat())
        .expect("a file");
    let mut command = Command::new(overlan());
    command.args(["send", "--to", "b", "--lines", "--json", "--socket"]).arg(from.config.control());
    let ran = finish_fed(&mut command, File::open(&input).expect("the file"));
    let summary: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!([&summary["sent"], &summary["delivered"]], [2, 2], "{summary}");
    let error = ran.fails(1);
    assert!(error.contains("larger than 16 MiB; split it"), "{error}");
    listener.wait_count(2, END);
}
