//! Local clients that break the rules of the application stream and of the control API.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use overlan_tests::cluster::Cluster;
use overlan_tests::fuzz::Random;
use overlan_tests::node::Node;
use overlan_tests::traffic::{assert_delivers, send_text};
use overlan_tests::wait::wait_until;

const PREFACE: &[u8] = b"\0OVLAN\0\x01";

fn connect(node: &Node) -> UnixStream {
    let stream = UnixStream::connect(node.config.control()).expect("the node answers");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

/// Sends bytes, ends, and gives what the node said until it closed.
fn exchange(node: &Node, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(node);
    // It may close before all was sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    answer(stream)
}

fn answer(mut stream: UnixStream) -> Vec<u8> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the node never closed"),
        _ => answer,
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 1).to_be_bytes();
    [&length[..], &[kind], body].concat()
}

fn says(answer: &[u8], what: &str) {
    let answer = String::from_utf8_lossy(answer);
    assert!(answer.contains(what), "{what:?} is not in {answer:?}");
}

fn two() -> Cluster {
    Cluster::started_on_loopback(2, |_, _| {})
}

#[test]
fn malformed_streams_end_with_a_reason_and_harm_nobody() {
    let cluster = two();
    let node = &cluster.nodes[0];
    says(&exchange(node, b"\0OVLAN\0\x02"), "preface");
    for (frame, why) in [
        (vec![0xff; 8], "length"),
        (vec![0, 0, 0, 0], "length"),
        (vec![0, 0, 0, 9, 2], "truncated"),
        (frame(99, b""), "unknown type"),
        (frame(2, b"\0"), "truncated"),
        (frame(2, b"\0\0\0\x01more"), "bytes behind the end"),
        (frame(16, &[0; 24]), "only a node sends this type"),
        (frame(1, &[0xff; 40]), "mode"),
    ] {
        says(&exchange(node, &[PREFACE, &frame].concat()), why);
    }
    // Ends within the preface, a length, a frame.
    let send = [PREFACE, &frame(1, &[&[0; 13][..], b"\0\x01b", &[0; 100]].concat())].concat();
    for length in [0, 1, 7, 8, 10, 12, 13, 60, send.len() - 1] {
        exchange(node, &send[..length]);
    }
    let mut random = Random::new(7);
    for _ in 0..200 {
        let noise: Vec<u8> = (0..random.below(300)).map(|_| random.byte()).collect();
        exchange(node, &[PREFACE, &noise].concat());
    }
    assert_delivers(node, &cluster.nodes[1], "ordered");
}

#[test]
fn a_listener_that_never_reads_blocks_nobody_for_good() {
    let cluster = two();
    let (from, to) = (&cluster.nodes[0], &cluster.nodes[1]);
    let mut lazy = connect(to);
    let endless = [&u32::MAX.to_be_bytes()[..]].concat();
    lazy.write_all(&[PREFACE, &frame(2, &endless), &frame(3, &endless), &frame(3, &endless)].concat())
        .expect("sent");
    let text = "x".repeat(1 << 20);
    for _ in 0..40 {
        send_text(from, "b", "unreliable", &text).ok();
    }
    // What is under way to it is not lost to the others once it is gone.
    drop(lazy);
    assert_delivers(from, to, "reliable");
}

#[test]
fn the_control_api_refuses_nonsense_in_words() {
    let cluster = two();
    let node = &cluster.nodes[0];
    let post = |path: &str, length: usize, body: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
        );
        let mut stream = connect(node);
        // At once: it may answer and close before all was read.
        let request = format!("{head}content-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).expect("the socket takes so little");
        answer(stream)
    };
    for body in ["{", "[]", "null", "{\"plugin\":7}", "\u{1b}[2J"] {
        let answer = post("/v1/policy/failover", body.len(), body);
        says(&answer, "HTTP/1.1 4");
        says(&answer, "\"error\"");
    }
    says(&post("/v1/policy/nonsense", 2, "{}"), "HTTP/1.1 4");
    for announced in [(64 << 20) + 1, i64::MAX as usize] {
        says(&post("/v1/policy/failover", announced, "{}"), "HTTP/1.1 413");
    }
    says(&post("/v1/forget/nobody", 0, ""), "HTTP/1.1 4");
    says(
        &exchange(node, b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        "HTTP/1.1 404",
    );
    says(&exchange(node, &[b"GET /", &[b'x'; 1 << 20][..], b" HTTP/1.1\r\n\r\n"].concat()), "HTTP/1.1 4");
    exchange(node, b"\x16\x03\x01 this is no HTTP\r\n\r\n");
    let status = || node.run(&["status", "--json"]).status;
    wait_until("the node to answer as before", Duration::from_secs(5), status, |status| *status == Some(0));
}

#[test]
fn silent_clients_do_not_keep_others_waiting() {
    let cluster = two();
    let node = &cluster.nodes[0];
    // As many as are served at a time, and more.
    let beginnings: [&[u8]; 3] = [b"", b"\0OVL", b"GET /v1/status HT"];
    let silent: Vec<UnixStream> = beginnings
        .iter()
        .cycle()
        .take(300)
        .map(|beginning| {
            let mut stream = connect(node);
            stream.write_all(beginning).expect("it listens");
            stream
        })
        .collect();
    assert_eq!(node.run(&["status", "--json"]).status, Some(0));
    drop(silent);
}

/// Clients that sent what nobody takes, and went, leave no trace but the messages; clients that stay keep nobody from
/// controlling the node.
#[test]
fn clients_that_went_or_stay_keep_nobody_out() {
    let cluster = two();
    let node = &cluster.nodes[0];
    // mode reliable, stream 7, no lifetime, to b: one message of one byte that no listener takes.
    let body = [&[0; 8][..], &[1, 0, 7, 0, 0, 0, 0, 0, 1, b'b', 0, 0, 0, 1, 0, 0, 0, 1, b'x']].concat();
    let sending = [PREFACE, &frame(4, &body)].concat();
    for _ in 0..300 {
        let mut stream = connect(node);
        stream.write_all(&sending).expect("the node reads");
        // Queued: it is the node's now.
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[4], 16, "{answer:?}");
    }
    // These stay.
    let idle: Vec<UnixStream> = (0..300)
        .map(|_| {
            let mut stream = connect(node);
            stream.write_all(PREFACE).expect("the node reads");
            stream
        })
        .collect();
    let served = || node.run(&["status", "--json"]).status == Some(0);
    overlan_tests::wait::wait_until("the node to answer", Duration::from_secs(20), served, |&served| served);
    drop(idle);
    // The places come back within seconds, and the messages arrive once somebody takes them.
    let listener = overlan_tests::traffic::Listener::start(&cluster.nodes[1]);
    let arrived = listener.wait_count(300, Duration::from_secs(30));
    assert_eq!(arrived.len(), 300);
    let again = || exchange(node, PREFACE).is_empty();
    wait_until("a place for another stream", Duration::from_secs(20), again, |&again| again);
}

/// As many clients as are served at a time, and more, that send this and then nothing.
fn hang(node: &Node, bytes: &[u8]) -> Vec<UnixStream> {
    let begin = |_| {
        let mut stream = connect(node);
        stream.write_all(bytes).expect("it listens");
        stream
    };
    (0..300).map(begin).collect()
}

fn serves(node: &Node) {
    assert_eq!(node.run(&["status", "--json"]).status, Some(0));
}

#[test]
fn bodies_that_never_end_keep_nobody_out() {
    let cluster = two();
    let node = &cluster.nodes[0];
    let small = "content-length: 1000\r\n\r\nx";
    let large = "content-length: 9000000\r\n\r\nx";
    let unknown = "transfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
    for (path, length) in [("policy/failover", large), ("document", unknown), ("keys", small)] {
        let hanging = hang(node, format!("POST /v1/{path} HTTP/1.1\r\nhost: x\r\n{length}").as_bytes());
        serves(node);
        // Each is told why, whether it waited in vain for a place or for its own bytes.
        let answers: Vec<Vec<u8>> = hanging.into_iter().map(answer).collect();
        let told =
            |status: &str| answers.iter().filter(|answer| answer.starts_with(status.as_bytes())).count();
        let (late, busy) = (told("HTTP/1.1 408"), told("HTTP/1.1 503"));
        assert_eq!(
            (late + busy, busy > 0),
            (300, length != small),
            "{path}: {late} late, {busy} without a place"
        );
    }
    // Nor do they keep others from uploading for long.
    let kept = hang(node, b"POST /v1/components HTTP/1.1\r\nhost: x\r\ncontent-length: 70000\r\n\r\n");
    let component =
        b"POST /v1/components HTTP/1.1\r\nhost: x\r\ncontent-length: 70000\r\nconnection: close\r\n\r\n";
    let component = [&component[..], &[7; 70_000]].concat();
    let upload = || exchange(node, &component);
    wait_until("a place for an upload", Duration::from_secs(20), upload, |answer| {
        answer.starts_with(b"HTTP/1.1 200")
    });
    drop(kept);
}

#[test]
fn answers_that_nobody_reads_keep_nobody_out() {
    let cluster = two();
    let node = &cluster.nodes[0];
    let request = b"GET /v1/policy HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    let deaf: Vec<UnixStream> = hang(node, b"");
    for mut stream in &deaf {
        stream.set_nonblocking(true).expect("a socket");
        // Until neither end takes any more.
        while stream.write(&request).is_ok() {}
    }
    serves(node);
    drop(deaf);
}
