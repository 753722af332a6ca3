//! A network namespace of a test's own, removed when the test ends, also by a panic.

use std::fs::File;
use std::future::Future;
use std::io::{Write as _, stderr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

/// No condition of these tests takes longer than this on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace.
pub(crate) struct Lab {
    name: String,
}

impl Lab {
    /// A new namespace, its loopback up; `None`, said loudly, where that is not possible.
    pub(crate) fn new(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            return skip(test, "needs root for network namespaces");
        }
        let name = format!("overlan-nl-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match Command::new("ip").args(["netns", "add", &name]).output() {
            Err(error) => skip(test, &format!("cannot run `ip`: {error}")),
            Ok(output) if !output.status.success() => skip(
                test,
                &format!("`ip netns add` failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
            ),
            Ok(_) => {
                let lab = Self { name };
                lab.ip("link set lo up");
                Some(lab)
            }
        }
    }

    /// Runs `ip` inside; it must succeed.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.try_ip(arguments).unwrap_or_else(|error| panic!("ip {arguments}: {error}"))
    }

    /// Runs `ip` inside.
    pub(crate) fn try_ip(&self, arguments: &str) -> Result<String, String> {
        let output = Command::new("ip")
            .args(["-n", &self.name])
            .args(arguments.split_whitespace())
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Runs `ip -j -d` inside and parses what it prints.
    pub(crate) fn json(&self, arguments: &str) -> Vec<Value> {
        let text = self.ip(&format!("-j -d {arguments}"));
        if text.trim().is_empty() {
            return Vec::new();
        }
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("ip -j {arguments}: {error}: {text}"))
    }

    /// Two adapters with routers beyond them: `left` 10.1.0.2/24, `right` 10.2.0.2/24 and fd02::2/64. Their peers stay
    /// in the namespace, without addresses.
    pub(crate) fn two_adapters(&self) {
        for (name, addresses) in
            [("left", &["10.1.0.2/24"][..]), ("right", &["10.2.0.2/24", "fd02::2/64 nodad"][..])]
        {
            self.ip(&format!("link add {name} type veth peer name {name}-peer"));
            // Link-local addresses would come and go while a test compares listings.
            self.ip(&format!("link set {name} addrgenmode none"));
            self.ip(&format!("link set {name}-peer addrgenmode none"));
            for address in addresses {
                self.ip(&format!("addr add {address} dev {name}"));
            }
            self.ip(&format!("link set {name} up"));
            self.ip(&format!("link set {name}-peer up"));
        }
        let start = Instant::now();
        while self.json("link show type veth").iter().any(|link| link["operstate"] != "UP") {
            assert!(start.elapsed() < PATIENCE, "the adapters do not come up");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Runs `work` on a thread inside, on a tokio runtime of its own, so that every socket it opens is inside too.
    pub(crate) fn run<F, W, T>(&self, work: F) -> T
    where
        F: FnOnce() -> W + Send,
        W: Future<Output = T>,
        T: Send,
    {
        self.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime
                .block_on(async { tokio::time::timeout(6 * PATIENCE, work()).await.expect("the test hangs") })
        })
    }

    /// Runs `work` on a thread inside.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Nothing to do about a failure here but to leave the namespace behind.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Says that a test did not run, past the test harness's capture, so that nobody takes it for a passed one.
pub(crate) fn say_skipped(test: &str, why: &str) {
    let _ = stderr().write_all(format!("SKIPPED: {test}: {why}\n").as_bytes());
}

fn skip(test: &str, why: &str) -> Option<Lab> {
    say_skipped(test, why);
    None
}

/// Asks until the answer is `Some`, for as long as [`PATIENCE`] lasts.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
