//! The Unix socket: HTTP for control, the application stream for messages; the first byte tells them apart. And the
//! optional TCP listener for metrics.

mod api;
mod body;
mod document;
mod metrics;

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;

use crate::client::is_hung_up;
use crate::config::{Config, check_runtime_dir};
use crate::handle::NodeHandle;
use crate::node::StartError;

/// Clients with a request, or yet to say what they want, served at a time; more wait to be accepted.
const MAX_CLIENTS: usize = 256;
/// Clients with a stream of messages at a time; more are refused. They keep nobody from controlling the node.
const MAX_STREAMS: usize = 256;
/// Pause where no client can be accepted: out of file descriptors, most likely, and clients that go give some back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A client has this long to say what it wants: silent ones must not keep others waiting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// A client that takes nothing of its answer for this long is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// Clients with a stream of messages have so long to take what is theirs once the node has left.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What listens.
pub(crate) struct Bound {
    control: Option<UnixListener>,
    metrics: Option<TcpListener>,
    streams: Arc<Semaphore>,
}

impl Bound {
    /// A place for each client's stream of messages.
    pub(crate) fn streams(&self) -> Arc<Semaphore> {
        self.streams.clone()
    }
}

/// Waits until the clients' streams are over: what was accepted for a listener is given to it.
pub(crate) async fn drain(streams: &Semaphore) {
    let _ = timeout(LAST_WORDS, streams.acquire_many(MAX_STREAMS as u32)).await;
}

/// Opens the sockets.
pub(crate) async fn bind(config: &Config) -> Result<Bound, StartError> {
    let control = match &config.control {
        Some(path) => {
            let listener = bind_control(path).await;
            Some(listener.map_err(|why| StartError::Control { path: path.clone(), why })?)
        }
        None => None,
    };
    let metrics = match config.metrics {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.map_err(|source| StartError::Metrics { address, source })?)
        }
        None => None,
    };
    Ok(Bound { control, metrics, streams: Arc::new(Semaphore::new(MAX_STREAMS)) })
}

async fn bind_control(path: &Path) -> Result<UnixListener, String> {
    let explain = |error: io::Error| format!("{error}; choose another place with --control");
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(explain)?;
        check_runtime_dir(dir)?;
    }
    match UnixListener::bind(path) {
        Ok(listener) => restrict(listener, path).map_err(explain),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // A file that nobody answers at was left by a node that was killed.
            if UnixStream::connect(path).await.is_ok() {
                return Err(
                    "another node answers at this control socket; stop it, or give this one a name or a \
                            --control of its own"
                        .to_owned(),
                );
            }
            if !std::fs::symlink_metadata(path).map_err(explain)?.file_type().is_socket() {
                return Err(
                    "a file that is no socket is there; choose another place with --control".to_owned()
                );
            }
            std::fs::remove_file(path).map_err(explain)?;
            UnixListener::bind(path).and_then(|listener| restrict(listener, path)).map_err(explain)
        }
        Err(error) => Err(explain(error)),
    }
}

/// Whoever may open the socket controls the node.
fn restrict(listener: UnixListener, path: &Path) -> io::Result<UnixListener> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until dropped.
pub(crate) async fn serve(bound: Bound, node: NodeHandle) {
    let metrics = async {
        match bound.metrics {
            Some(listener) => {
                serve_metrics(listener, metrics::router(node.clone())).await;
            }
            None => std::future::pending().await,
        }
    };
    let control = async {
        match bound.control {
            Some(listener) => accept(listener, bound.streams, &node).await,
            None => std::future::pending().await,
        }
    };
    tokio::join!(metrics, control);
}

async fn serve_metrics(listener: TcpListener, router: Router) {
    let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(permit) = clients.clone().acquire_owned().await else { return };
        let (stream, _) = next_client("metrics", async || listener.accept().await).await;
        let router = router.clone();
        tokio::spawn(async move {
            http(stream, router).await;
            drop(permit);
        });
    }
}

/// The next client. That none can be taken, for want of descriptors say, is told once.
async fn next_client<T>(socket: &str, accept: impl AsyncFn() -> io::Result<T>) -> T {
    let mut told = false;
    loop {
        match accept().await {
            Ok(client) => return client,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, socket, "no client can be taken for the time being");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(listener: UnixListener, streams: Arc<Semaphore>, node: &NodeHandle) {
    let router = api::router(node.clone()).merge(metrics::router(node.clone()));
    let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(permit) = clients.clone().acquire_owned().await else { return };
        let (stream, _) = next_client("control", async || listener.accept().await).await;
        let (router, node, streams) = (router.clone(), node.clone(), streams.clone());
        tokio::spawn(async move {
            match timeout(PATIENCE, first_byte(&stream)).await {
                Ok(Ok(Some(0))) => {
                    drop(permit);
                    match streams.try_acquire_owned() {
                        Ok(_place) => crate::app::serve(stream, node).await,
                        Err(_) => crate::app::refuse(stream, "too many streams of messages; close one").await,
                    }
                }
                Ok(Ok(Some(_))) => {
                    let gone = hang_up(&stream);
                    tokio::select! {
                        () = http(stream, router) => {}
                        // Nobody waits for the answer any more: what is not done yet is left.
                        () = gone => {}
                    }
                    drop(permit);
                }
                Ok(Ok(None) | Err(_)) | Err(_) => {}
            }
        });
    }
}

/// Looks at the first byte and leaves it where it is.
async fn first_byte(stream: &UnixStream) -> io::Result<Option<u8>> {
    let mut byte = [0; 1];
    let fd = stream.as_raw_fd();
    let count = stream
        .async_io(Interest::READABLE, || recv(fd, &mut byte, MsgFlags::MSG_PEEK).map_err(io::Error::from))
        .await?;
    Ok((count == 1).then_some(byte[0]))
}

/// Ends once the client has closed both ways. One that only sends no more still waits for its answer: reading, as the
/// server does, can't tell the two apart.
fn hang_up(stream: &UnixStream) -> impl Future<Output = ()> + use<> {
    let watched = stream.as_fd().try_clone_to_owned().and_then(|stream| UnixStream::from_std(stream.into()));
    async move {
        // Without a file descriptor to spare, the client is taken to stay.
        let Ok(watched) = watched else { return std::future::pending().await };
        let look = || if is_hung_up(&watched) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) };
        // It fails only as the node stops.
        let _ = watched.async_io(Interest::WRITABLE, look).await;
    }
}

async fn http(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, router: Router) {
    let service = TowerToHyperService::new(router);
    let mut server = hyper::server::conn::http1::Builder::new();
    // A client that ends its side after the request still gets its answer.
    server.half_close(true);
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let mut stream = Box::pin(TimeoutStream::new(stream));
    stream.as_mut().set_write_timeout_pinned(Some(WRITE_PATIENCE));
    let served = server.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a control client");
    }
}
