//! A worker process, as the runner sees it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;

/// A worker that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running worker; dropping it ends it.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
    /// Processor time when the measurement began.
    busy: Duration,
    began: Instant,
}

impl Process {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("a pipe")?;
        let output = BufReader::new(child.stdout.take().context("a pipe")?);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut process = Process { child, input, lines, busy: Duration::ZERO, began: Instant::now() };
        process.wait_for("ready")?;
        Ok(process)
    }

    fn wait_for(&mut self, word: &str) -> anyhow::Result<String> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(word) {
                        return Ok(rest.to_owned());
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("a worker did not say {word:?} in time"),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    return Err(anyhow!("a worker ended with {status} before it said {word:?}"));
                }
            }
        }
    }

    /// The measured time begins.
    pub(crate) fn mark(&mut self) -> anyhow::Result<()> {
        self.busy = self.processor_time()?;
        self.began = Instant::now();
        Ok(writeln!(self.input, "mark")?)
    }

    /// The measured time ends: what the worker counted, and `cores`, the processor time it took per second.
    pub(crate) fn stop(&mut self) -> anyhow::Result<Value> {
        let busy = self.processor_time().unwrap_or_default().saturating_sub(self.busy);
        let cores = busy.as_secs_f64() / self.began.elapsed().as_secs_f64();
        writeln!(self.input, "stop").context("a worker ended too early")?;
        let mut result: Value = serde_json::from_str(&self.wait_for("result")?)?;
        result["cores"] = cores.into();
        Ok(result)
    }

    /// Time that all threads of the process had a core (proc(5), `schedstat`): finer than the ticks of `stat`.
    fn processor_time(&self) -> anyhow::Result<Duration> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()))?;
        let ran = tasks.flatten().filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Ok(Duration::from_nanos(ran.sum()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
