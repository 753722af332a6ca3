//! The cluster document, through the program: apply, get, watch, signatures, and policies pushed to every member.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use overlan_tests::binary::{Ran, finish, finish_unread, overlan, run};
use overlan_tests::cluster::Cluster;
use overlan_tests::config::Responsibility;
use overlan_tests::json::{number, rows, text};
use overlan_tests::node::Node;
use overlan_tests::wait::wait_until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// `overlan watch --json`, into a file.
struct Watch {
    child: Child,
    path: PathBuf,
}

impl Watch {
    fn start(node: &Node, path: PathBuf) -> Watch {
        let file = fs::File::create(&path).expect("a file");
        let mut command = Command::new(overlan());
        command.args(["watch", "--json", "--socket"]).arg(node.config.control());
        let child = command.stdin(Stdio::null()).stdout(file).spawn().expect("it starts");
        Watch { child, path }
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.path).expect("its output");
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What the member owns by all that was told, in the order of names.
    fn owned(&self) -> Vec<(String, String)> {
        let mut owned = std::collections::BTreeMap::new();
        for line in self.lines().iter().filter(|line| text(line, "event") == "responsibility") {
            let (name, now) = (text(line, "name").to_owned(), text(line, "now").to_owned());
            let before = owned.insert(name, now).unwrap_or_else(|| "none".into());
            assert_eq!(before, text(line, "before"), "{line}");
        }
        owned.into_iter().filter(|(_, now)| now != "none").collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn file(cluster: &Cluster, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = cluster.folder().join(name);
    fs::write(&path, text).expect("a file");
    path.to_str().expect("a plain name").to_owned()
}

/// What a plan gives a member, in the order of names.
fn planned(plan: &Value, member: &str) -> Vec<(String, String)> {
    let duty = |duty: &Value| {
        let place = rows(&duty["owners"]).iter().position(|owner| owner == member)?;
        let ownership = if place == 0 { "primary" } else { "standby" };
        Some((text(duty, "name").to_owned(), ownership.to_owned()))
    };
    let mut planned: Vec<_> = rows(&plan["duties"]).iter().filter_map(duty).collect();
    planned.sort();
    planned
}

fn wait_document(cluster: &Cluster, version: u64) {
    let held = || cluster.nodes.iter().map(|node| node.listing("status")).collect::<Vec<_>>();
    let all = |statuses: &Vec<Value>| {
        statuses.iter().all(|status| {
            let document = &status["document"];
            number(document, "version") == version
                && document["agreed"] == true
                && document["digest"] == statuses[0]["document"]["digest"]
        })
    };
    wait_until("all members to hold one document and know so", LIMIT, held, all);
}

#[test]
fn a_document_is_applied_printed_and_watched_and_survives_a_full_restart() {
    let mut cluster = Cluster::started_on_loopback(3, |_, config| {
        config.responsibilities = vec![Responsibility { name: "shard-{0..7}".into(), replicas: 2 }];
    });
    let watch = Watch::start(&cluster.nodes[1], cluster.folder().join("watch"));
    let initial = file(&cluster, "initial.toml", cluster.nodes[2].run(&["get"]).ok());
    let owned = |plan: &Value| planned(plan, "b");
    let same = |(plan, watched): &(Value, Vec<_>)| owned(plan) == *watched && !watched.is_empty();
    let look = || (cluster.nodes[1].listing("plan"), watch.owned());
    wait_until("the watcher to know what b owns", LIMIT, look, same);

    let document = "[[responsibility]]\nname = \"job-{0..19}\"\nreplicas = 2\nweight = 2.5\n\
                    [[responsibility]]\nname = \"leader\"\n";
    let applied = cluster.nodes[0].run(&["apply", &file(&cluster, "jobs.toml", document), "--json"]).json();
    assert_eq!((number(&applied, "version"), &applied["agreed"]), (1, &Value::Bool(true)));
    wait_document(&cluster, 1);
    let plans = || cluster.nodes.iter().map(|node| node.listing("plan")).collect::<Vec<_>>();
    let one = |plans: &Vec<Value>| {
        plans.iter().all(|plan| {
            number(plan, "document_version") == 1
                && plan["digest"] == plans[0]["digest"]
                && rows(&plan["duties"]).len() == 21
        })
    };
    wait_until("one plan for the document", LIMIT, plans, one);
    wait_until("the watcher to know what b owns", LIMIT, look, same);
    let events: Vec<String> = watch.lines().iter().map(|line| text(line, "event").to_owned()).collect();
    assert!(events.iter().any(|event| event == "document") && events.iter().any(|event| event == "plan"));

    // What was made from another version lost the race; what is in force may be applied again, and changes nothing.
    let late = cluster.nodes[1].run(&["apply", &initial]).fails(1);
    assert!(late.contains("the race is lost: version 1 is in force"), "{late}");
    let printed = file(&cluster, "printed.json", cluster.nodes[1].run(&["get", "--json"]).ok());
    let again = cluster.nodes[1].run(&["apply", &printed, "--json"]).json();
    assert_eq!(number(&again, "version"), 1);
    let changed = file(&cluster, "changed.toml", document.replace("2.5", "3.5"));
    cluster.nodes[1].run(&["apply", &changed]).ok();
    wait_document(&cluster, 2);
    for (bad, named) in [
        ("[[responsibility]]\nname = \"a\"\nreplica = 1\n", "responsibility[0].replica"),
        ("[[responsibility]]\nname = \"a\"\nreplicas = 99\n", "replicas is 99"),
        ("{\"responsibility\": [{\"name\": \"a\"}, {\"name\": \"a\"}]}", "listed twice"),
        ("responsibility = []\n[policy.sizing]\nplugin = \"mine.wasm\"\n", "overlan policy push sizing"),
    ] {
        let refused = cluster.nodes[0].run(&["apply", &file(&cluster, "bad", bad)]).fails(1);
        assert!(refused.contains(named), "{refused}");
    }
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::restart);
    wait_document(&cluster, 2);
    wait_until(
        "the plan to stand again",
        LIMIT,
        || cluster.nodes[2].listing("plan"),
        |plan| rows(&plan["duties"]).len() == 21 && number(plan, "document_version") == 2,
    );
}

#[test]
fn a_document_that_cannot_be_stored_is_a_problem_until_it_is() {
    let cluster = Cluster::started_on_loopback(2, |_, _| {});
    let [first, second] = [0, 1].map(|at: usize| cluster.nodes[at].config.folder.join("state/document"));
    fs::create_dir(&second).expect("a folder that is in the way");
    let document = file(&cluster, "document.toml", "[[responsibility]]\nname = \"leader\"\n");
    cluster.nodes[0].run(&["apply", &document]).ok();
    // What is in force already makes no version.
    cluster.nodes[0].run(&["apply", &document]).ok();
    let stored = fs::read(&first).expect("the member that was asked has it on its disk");
    let problems = || cluster.nodes[1].problems();
    wait_until("the problem", LIMIT, problems, |problems| problems.contains("cannot be stored"));
    wait_document(&cluster, 1);
    fs::remove_dir(&second).expect("it was there");
    wait_until("no problem", LIMIT, problems, |problems| !problems.contains("cannot be stored"));
    assert_eq!(fs::read(&second).expect("a file"), stored);
}

/// Asks for the lines of `overlan watch`; the status of the answer, and the connection.
fn open_watch(node: &Node) -> (String, UnixStream) {
    let mut stream = UnixStream::connect(node.config.control()).expect("the control socket");
    stream.write_all(b"GET /v1/watch HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("a request");
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("an answer");
    (String::from_utf8_lossy(&status[9..]).into_owned(), stream)
}

#[test]
fn watchers_that_are_gone_make_room_on_a_quiet_cluster() {
    let cluster = Cluster::started_on_loopback(1, |_, _| {});
    let node = &cluster.nodes[0];
    let watching: Vec<_> = (0..64).map(|_| open_watch(node)).collect();
    assert!(watching.iter().all(|(status, _)| status == "200"));
    assert_eq!(open_watch(node).0, "503");
    drop(watching);
    wait_until("room for another", LIMIT, || open_watch(node).0, |status| status == "200");
}

/// A shipped component with a section that says nothing: another digest, the same policy.
fn component(cluster: &Cluster, shipped: &str, mark: u8) -> String {
    let dist = overlan_tests::package().join("../plugins/dist").join(shipped);
    let mut wasm = fs::read(dist).expect("a shipped component");
    wasm.extend_from_slice(&[0, 4, 3, b'a', b'b', mark]);
    file(cluster, &format!("pushed-{}.wasm", char::from(mark)), wasm)
}

fn wait_failover(node: &Node, plugin: &str) -> String {
    let show = || node.run(&["policy", "show", "failover", "--json"]).json();
    let status = wait_until("the policy to answer", LIMIT, show, |status| text(status, "plugin") == plugin);
    text(&status, "sha256").to_owned()
}

#[test]
fn a_pushed_policy_reaches_all_members_or_none_and_late_comers_fetch_it() {
    let mut cluster = Cluster::started_on_loopback(3, |_, _| {});
    let [first, second] = [b'1', b'2'].map(|mark| component(&cluster, "knet-compat.wasm", mark));
    cluster.nodes[0].run(&["policy", "push", "failover", &first]).ok();
    wait_document(&cluster, 1);
    let digests: Vec<String> =
        cluster.nodes.iter().map(|node| wait_failover(node, "pushed-1.wasm")).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0] && digest.len() == 64));

    let config = cluster.config(3);
    cluster.launch(3, config);
    cluster.nodes[3].wait_ready();
    assert_eq!(wait_failover(&cluster.nodes[3], "pushed-1.wasm"), digests[0]);
    wait_document(&cluster, 1);

    // One member that cannot store it keeps all from it, by name.
    let components = cluster.nodes[2].config.folder.join("state/components");
    fs::remove_dir_all(&components).expect("a folder of components");
    fs::write(&components, "in the way").expect("a file");
    let refused = cluster.nodes[1].run(&["policy", "push", "failover", &second]).fails(1);
    assert!(refused.contains("c: ") && refused.contains("nothing changed on any member"), "{refused}");
    assert!(refused.contains("`overlan policy show KIND` at that member"), "{refused}");
    for node in &cluster.nodes {
        assert_eq!(wait_failover(node, "pushed-1.wasm"), digests[0]);
        assert_eq!(number(&node.listing("status")["document"], "version"), 1);
    }
    fs::remove_file(&components).expect("it was there");
    cluster.nodes[1].run(&["policy", "push", "failover", &second]).ok();
    wait_document(&cluster, 2);
    cluster.nodes.iter().for_each(|node| drop(wait_failover(node, "pushed-2.wasm")));
    let junk = file(&cluster, "junk.wasm", "junk");
    let refused = cluster.nodes[0].run(&["policy", "push", "sizing", &junk]).fails(1);
    assert!(refused.contains("policy.sizing junk.wasm"), "{refused}");
    // A document that names no policy leaves them to the members' configuration again.
    let empty = file(&cluster, "empty.toml", "version = 2\nresponsibility = []\n");
    cluster.nodes[2].run(&["apply", &empty]).ok();
    cluster.nodes.iter().for_each(|node| drop(wait_failover(node, "builtin:fast")));
}

#[test]
fn a_push_ends_with_its_client() {
    let cluster = Cluster::started_on_loopback(3, |_, _| {});
    let [first, second] = [b'1', b'2'].map(|mark| component(&cluster, "knet-compat.wasm", mark));
    let (asked, stopped) = (&cluster.nodes[0], &cluster.nodes[1]);
    let logged = |words: &str| {
        wait_until("the member to tell", LIMIT, || asked.log(), |log| log.contains(words));
    };
    // It waits for a member that does not answer.
    stopped.signal(Signal::SIGSTOP);
    let mut command = Command::new(overlan());
    command.args(["policy", "push", "failover", &first, "--socket"]).arg(asked.config.control());
    let mut client = command.stdin(Stdio::null()).spawn().expect("it starts");
    logged("all members prepare the policies");
    client.kill().expect("our own child");
    client.wait().expect("it ends");
    logged("is abandoned on all members");
    stopped.signal(Signal::SIGCONT);
    cluster.wait_settled();
    asked.run(&["policy", "push", "failover", &second]).ok();
    wait_document(&cluster, 1);
    cluster.nodes.iter().for_each(|node| drop(wait_failover(node, "pushed-2.wasm")));
}

/// A client that sends no more may still wait.
#[test]
fn a_request_outlives_the_end_of_sending() {
    let cluster = Cluster::started_on_loopback(1, |_, _| {});
    let wasm = fs::read(component(&cluster, "knet-compat.wasm", b'1')).expect("a component");
    let mut stream = UnixStream::connect(cluster.nodes[0].config.control()).expect("the control socket");
    let head = format!(
        "POST /v1/policy/failover HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        wasm.len()
    );
    stream.write_all(&[head.as_bytes(), &wasm].concat()).expect("a request");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_push_keeps_the_responsibilities_and_needs_the_quorum() {
    let mut cluster = Cluster::started_on_loopback(3, |member, config| {
        config.quorum = "majority";
        if member == 0 {
            config.responsibilities = vec![Responsibility { name: "shard-{0..7}".into(), replicas: 2 }];
        }
    });
    let duties = |node: &Node| rows(&node.listing("plan")["duties"]).len();
    wait_until("the plan to give out 8 duties", LIMIT, || duties(&cluster.nodes[2]), |count| *count == 8);
    // The member that is asked has no [[responsibility]] of its own.
    let pushed = cluster.nodes[2].run(&["policy", "push", "failover", "builtin:knet-compat"]);
    assert!(pushed.stderr.contains("took over the 8 responsibilities of the plan"), "{}", pushed.stderr);
    pushed.ok();
    wait_document(&cluster, 1);
    let plan = || cluster.nodes[0].listing("plan");
    let same = |plan: &Value| number(plan, "document_version") == 1 && rows(&plan["duties"]).len() == 8;
    wait_until("the plan for the document", LIMIT, plan, same);

    for member in 0..2 {
        cluster.nodes[member].kill();
    }
    let owned = || duties(&cluster.nodes[2]);
    wait_until("the last member to own nothing", LIMIT, owned, |count| *count == 0);
    let document = file(&cluster, "document.toml", "[[responsibility]]\nname = \"leader\"\n");
    for command in [&["apply", &document][..], &["policy", "push", "failover", "builtin:fast"]] {
        let refused = cluster.nodes[2].run(command).fails(1);
        assert!(refused.contains("no more than half of the members"), "{refused}");
    }
    assert_eq!(number(&cluster.nodes[2].listing("status")["document"], "version"), 1);
}

#[test]
fn an_operators_cluster_takes_what_the_operator_signed() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("operator.key");
    let key = key.to_str().expect("a plain name");
    let made = run(["keygen", "--operator", "--out", key]);
    let public = made.stderr.split('"').nth(1).expect("it tells the public key").to_owned();
    made.ok();
    let mut cluster = Cluster::started_on_loopback(2, |_, config| config.operator_key.clone_from(&public));
    let document = file(&cluster, "document.toml", "[[responsibility]]\nname = \"leader\"\n");
    let refused = cluster.nodes[0].run(&["apply", &document]).fails(1);
    assert!(refused.contains("add `--sign KEYFILE`"), "{refused}");
    cluster.nodes[0].run(&["apply", &document, "--sign", key]).ok();
    wait_document(&cluster, 1);
    assert_eq!(cluster.nodes[1].listing("status")["document"]["signed"], true);
    let unsigned = cluster.nodes[1].run(&["policy", "push", "failover", "builtin:knet-compat"]).fails(1);
    assert!(
        unsigned.contains("signed by its operator") && unsigned.contains("add `--sign KEYFILE`"),
        "{unsigned}"
    );
    // Nothing is applied while a member has another key: it would take what the others refuse.
    let config = cluster.config(2);
    cluster.start(2, config);
    cluster.wait_settled();
    let differs = |node: &Node| node.problems().contains("operator_key differs");
    let told = || cluster.nodes.iter().all(differs);
    wait_until("all to tell that the keys differ", LIMIT, told, |told| *told);
    let push = ["policy", "push", "failover", "builtin:knet-compat", "--sign", key];
    for node in &cluster.nodes {
        let refused = node.run(&push).fails(1);
        assert!(refused.contains("none at c") || refused.contains("none here"), "{refused}");
    }
    cluster.nodes[2].config.operator_key.clone_from(&public);
    cluster.nodes[2].restart();
    let told = || cluster.nodes.iter().any(differs);
    wait_until("no member to differ", LIMIT, told, |told| !told);
    wait_document(&cluster, 1);
    cluster.nodes[1].run(&push).ok();
    wait_document(&cluster, 2);
    cluster.nodes.iter().for_each(|node| drop(wait_failover(node, "builtin:knet-compat")));
}

/// `overlan apply` against a control socket that gives this one answer; `read`: whether what it prints is read.
fn apply_answered(folder: &Path, answer: &str, read: bool) -> Ran {
    let (socket, document) = (folder.join("control.sock"), folder.join("document.toml"));
    let _ = fs::remove_file(&socket);
    fs::write(&document, "[[responsibility]]\nname = \"leader\"\n").expect("a file");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let mut command = Command::new(overlan());
    command.args(["apply", "--json", "--socket"]).arg(&socket).arg(&document);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = listener.accept().expect("the program connects").0;
            let mut request = BufReader::new(stream.try_clone().expect("the stream twice"));
            let (mut line, mut body) = (String::new(), 0);
            while line != "\r\n" {
                line.clear();
                request.read_line(&mut line).expect("a request");
                let length = line.to_lowercase();
                body = length
                    .strip_prefix("content-length:")
                    .map_or(body, |n| n.trim().parse().expect("a number"));
            }
            request.read_exact(&mut vec![0; body]).expect("its body");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
            stream.write_all(&[head.as_bytes(), answer.as_bytes()].concat()).expect("an answer");
        });
        if read { finish(&mut command) } else { finish_unread(&mut command) }
    })
}

#[test]
fn a_document_that_not_all_confirmed_has_an_exit_status_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let answer = |agreed, missing| {
        format!(r#"{{"version":7,"digest":"ab","agreed":{agreed},"missing":{missing},"without":[]}}"#)
    };
    let late = answer(false, r#"["b","c","d"]"#);
    let applied = apply_answered(folder.path(), &late, true);
    assert_eq!(serde_json::from_str::<Value>(&applied.stdout).expect("JSON")["agreed"], false);
    let told = applied.fails(3);
    assert!(told.contains("version 7 is in force here") && told.contains("b, c and d have not"), "{told}");
    // Nobody reads the listing: the status tells all the same.
    assert_eq!(apply_answered(folder.path(), &late, false).status, Some(3));
    apply_answered(folder.path(), &answer(true, "[]"), true).ok();
}
