//! A running member: one process, ended by its process id.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::binary::{self, Ran, overlan, wait_child};
use crate::config::Config;
use crate::json::text;
use crate::wait::{wait_for, wait_until};

/// Starting compiles the policies, in a debug build on a busy machine.
pub const READY: Duration = Duration::from_secs(60);
/// A node that was asked to leave must be gone by then.
const GONE: Duration = Duration::from_secs(20);
/// Lines of a member's log that a failing test shows.
const LOG_LINES: usize = 60;

/// A member's process.
#[derive(Debug)]
pub struct Node {
    /// What it was started with.
    pub config: Config,
    namespace: Option<String>,
    child: Option<Child>,
}

impl Node {
    /// Starts a member, in a namespace or here, and waits until it answers on its control socket.
    ///
    /// # Panics
    /// Where it ends, or does not answer.
    pub fn start(config: Config, namespace: Option<&str>) -> Node {
        let mut node = Node::launch(config, namespace);
        node.wait_ready();
        node
    }

    /// Starts a member without waiting for it.
    ///
    /// # Panics
    /// Where the process cannot be started.
    pub fn launch(config: Config, namespace: Option<&str>) -> Node {
        let mut node = Node { config, namespace: namespace.map(Into::into), child: None };
        node.spawn(&[]);
        node
    }

    /// As [`Node::launch`], with the process behind a wrapper such as `setpriv --bounding-set -all`.
    ///
    /// # Panics
    /// Where the process cannot be started.
    pub fn launch_behind(config: Config, namespace: Option<&str>, wrapper: &[&str]) -> Node {
        let mut node = Node { config, namespace: namespace.map(Into::into), child: None };
        node.spawn(wrapper);
        node
    }

    fn spawn(&mut self, wrapper: &[&str]) {
        let folder = &self.config.folder;
        fs::create_dir_all(folder).expect("a folder for the member");
        let file = folder.join("node.toml");
        fs::write(&file, self.config.text()).expect("its configuration");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("its log");
        // Should this test be killed, its members are too.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(namespace) = &self.namespace {
            command.args(["ip", "netns", "exec", namespace]);
        }
        command.args(wrapper).arg(overlan()).args(["node", "--config"]).arg(&file);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log twice")).stderr(log);
        self.child = Some(command.spawn().expect("setpriv and ip can be run"));
    }

    /// Waits until it answers on its control socket.
    ///
    /// # Panics
    /// Where it ends, or does not answer.
    pub fn wait_ready(&mut self) {
        let name = self.config.name.clone();
        wait_for(&format!("member {name} to answer"), READY, || {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                panic!("member {name} ended: {status}\n{}", self.log());
            }
            (self.run(&["status", "--json"]).status == Some(0)).then_some(())
        });
    }

    /// Its process id, by which it may be stopped, continued or killed.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().expect("it runs").id().cast_signed())
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("a signal to our own child");
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to leave the cluster and end.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_end(GONE)
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// Where it does not.
    pub fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        let status = wait_child(child, limit)
            .unwrap_or_else(|| panic!("member {} did not end in {limit:?}", self.config.name));
        self.child = None;
        status
    }

    /// Whether its process has ended.
    ///
    /// # Panics
    /// Where it was not started.
    pub fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut().expect("it was started");
        child.try_wait().expect("a child can be waited for").is_some()
    }

    /// Starts it again with what its configuration says now.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn(&[]);
        self.wait_ready();
    }

    /// Runs a command against its control socket.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let socket = self.config.control();
        let socket = socket.to_str().expect("temporary folders have plain names");
        binary::run(arguments.iter().copied().chain(["--socket", socket]))
    }

    /// Runs a listing command against it.
    pub fn listing(&self, command: &str) -> Value {
        self.run(&[command, "--json"]).json()
    }

    /// Digest of its table.
    pub fn digest(&self) -> String {
        self.run(&["table", "--digest"]).ok().trim().to_owned()
    }

    /// State of a member as this one sees it, empty where it does not know it.
    pub fn state_of(&self, member: &str) -> String {
        let members = self.listing("members");
        let known = crate::json::rows(&members).iter().find(|row| text(row, "name") == member);
        known.map(|row| text(row, "state").to_owned()).unwrap_or_default()
    }

    /// Waits until it sees a member in a state.
    ///
    /// # Panics
    /// After `limit`.
    pub fn wait_state(&self, member: &str, state: &str, limit: Duration) {
        let what = format!("{} to see {member} as {state}", self.config.name);
        wait_until(&what, limit, || self.state_of(member), |seen| seen == state);
    }

    /// Waits until plugins answer every kind: they are compiled while the native fallbacks answer already.
    ///
    /// # Panics
    /// Where they do not.
    pub fn wait_plugins(&self) {
        let active = || self.run(&["policy", "list", "--json"]).json()["active"].clone();
        let all = |active: &Value| crate::json::rows(active).iter().all(|row| row["plugin"] != "native");
        wait_until("plugins to answer every kind", READY, active, all);
    }

    /// A counter of its status.
    pub fn counter(&self, name: &str) -> u64 {
        crate::json::number(&self.listing("status")["counters"], name)
    }

    /// What its status says is wrong, one sentence a line.
    pub fn problems(&self) -> String {
        let status = self.listing("status");
        let problems = status["problems"].as_array().expect("a list of problems");
        problems.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.config.folder.join("log")
    }

    /// The end of what it wrote to its log.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of member {} ---\n{}", self.config.name, self.log());
        }
    }
}
