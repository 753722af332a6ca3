//! Talks to a running node over its Unix socket: the command line is a client like any other.

use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::app::frame::PREFACE;
use crate::app::{Frame, FrameError};
use crate::config::{check_runtime_dir, is_trusted, runtime_dir};

/// Bytes of a stream read or written at once.
const CHUNK: usize = 256 << 10;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No socket was named, and there is not exactly one.
    #[error("{0}")]
    Discovery(String),
    /// Nobody answers.
    #[error(
        "no node answers at {path}: {source}; is it running? (`overlan node --config FILE` starts one, --socket names another)"
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error(
        "the connection to the node broke: {0}; what was asked for may be done all the same: look before asking again"
    )]
    Broken(String),
    /// The node refused.
    #[error("{error}{}{hint}", if hint.is_empty() { "" } else { "; " })]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Why.
        error: String,
        /// What to do.
        hint: String,
    },
}

/// The socket to use: the one named, else `OVERLAN_SOCKET`, else the only one in the runtime directory.
///
/// # Errors
/// None, or more than one.
pub fn discover(named: Option<&Path>) -> Result<PathBuf, ClientError> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    if let Some(path) = std::env::var_os("OVERLAN_SOCKET").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let dir = runtime_dir();
    check_runtime_dir(&dir).map_err(ClientError::Discovery)?;
    // What somebody else put there is no node of ours.
    let own = |entry: &DirEntry| entry.metadata().is_ok_and(|facts| is_trusted(&facts));
    let entries =
        std::fs::read_dir(&dir).into_iter().flatten().flatten().filter(own).map(|entry| entry.path());
    let mut sockets: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "sock")).collect();
    sockets.sort();
    match &sockets[..] {
        [one] => Ok(one.clone()),
        [] => Err(ClientError::Discovery(format!(
            "no node runs here: no socket in {}; start one with `overlan node --config FILE`, or name its socket \
             with --socket or OVERLAN_SOCKET",
            dir.display()
        ))),
        several => {
            let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            Err(ClientError::Discovery(format!(
                "several nodes run here; choose one with --socket or OVERLAN_SOCKET: {}",
                names.join(", ")
            )))
        }
    }
}

/// Text as a segment of a request's path.
pub fn path_segment(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

/// A client of the control API.
#[derive(Clone, Debug)]
pub struct Control {
    path: PathBuf,
}

impl Control {
    /// A client of the node at this socket. Connects with each request.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Control { path: path.into() }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// GET.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::GET, path, None, Bytes::new()).await
    }

    /// POST, with a body of this content type.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<T, ClientError> {
        self.request(Method::POST, path, Some(content_type), body.into()).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::DELETE, path, None, Bytes::new()).await
    }

    /// GET of a body that goes on and on: one JSON object a line.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lines(&self, path: &str) -> Result<Lines, ClientError> {
        let response = self.response(Method::GET, path, None, Bytes::new()).await?;
        match response.status() {
            StatusCode::OK => Ok(Lines { body: response.into_body(), buffer: BytesMut::new() }),
            _ => Err(refusal(response).await?),
        }
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let response = self.response(method, path, content_type, body).await?;
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await?);
        }
        let body = response.into_body().collect().await.map_err(|error| broken(&error))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| broken(&error))
    }

    async fn response(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = connect(&self.path).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let request = request.body(Full::new(body)).map_err(|error| broken(&error))?;
        sender.send_request(request).await.map_err(|error| broken(&error))
    }
}

fn broken(error: &dyn std::fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}

/// What a refusal says.
async fn refusal(response: Response<Incoming>) -> Result<ClientError, ClientError> {
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| broken(&error))?.to_bytes();
    #[derive(serde::Deserialize)]
    struct Refusal {
        error: String,
        hint: String,
    }
    let refusal: Refusal = serde_json::from_slice(&body).unwrap_or_else(|_| Refusal {
        error: format!("{status}: {}", String::from_utf8_lossy(&body)),
        hint: String::new(),
    });
    Ok(ClientError::Refused { status: status.as_u16(), error: refusal.error, hint: refusal.hint })
}

/// Lines as the node sends them.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    /// The next one, read as JSON; `None` when the node has stopped. Cancel-safe.
    ///
    /// # Errors
    /// The connection broke, or the line is no `T`.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                // An empty one only shows that the node is there.
                if end == 0 {
                    continue;
                }
                return serde_json::from_slice(&line).map(Some).map_err(|error| broken(&error));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    self.buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
                }
                Some(Err(error)) => return Err(broken(&error)),
                None => return Ok(None),
            }
        }
    }
}

async fn connect(path: &Path) -> Result<UnixStream, ClientError> {
    UnixStream::connect(path).await.map_err(|source| ClientError::Connect { path: path.to_owned(), source })
}

/// Whether the other end has closed both ways, so that nobody reads what is said: poll(2) tells a hang-up then, and
/// none where it only sends no more.
pub(crate) fn is_hung_up(stream: &UnixStream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// The client's end of an application stream.
#[derive(Debug)]
pub struct Stream {
    /// What the node says.
    pub reader: StreamReader,
    /// What the client says.
    pub writer: StreamWriter,
}

/// What the other end says.
#[derive(Debug)]
pub struct StreamReader {
    read: OwnedReadHalf,
    buffer: BytesMut,
}

/// What the client says; buffered until [`flush`](Self::flush).
#[derive(Debug)]
pub struct StreamWriter(BufWriter<OwnedWriteHalf>);

impl Stream {
    /// Connects.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let (read, write) = connect(path).await?.into_split();
        let mut writer = BufWriter::with_capacity(CHUNK, write);
        // At once: the node does not wait for long for it, and what is said first may be long in coming.
        let broken = |error: std::io::Error| ClientError::Broken(error.to_string());
        writer.write_all(&PREFACE).await.map_err(broken)?;
        writer.flush().await.map_err(broken)?;
        Ok(Stream { reader: StreamReader::new(read), writer: StreamWriter(writer) })
    }
}

impl StreamReader {
    pub(crate) fn new(read: OwnedReadHalf) -> Self {
        StreamReader { read, buffer: BytesMut::with_capacity(CHUNK) }
    }

    /// See [`is_hung_up`].
    pub(crate) fn is_hung_up(&self) -> bool {
        is_hung_up(self.read.as_ref())
    }

    /// The next frame; `None` when the other end closed. Cancel-safe. Payloads are slices of what was read at once.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = Frame::split(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            if self.buffer.capacity() - self.buffer.len() < CHUNK / 4 {
                self.buffer.reserve(CHUNK);
            }
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(FrameError::Malformed("truncated")),
                };
            }
        }
    }
}

impl StreamWriter {
    /// Queues a frame.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn write(&mut self, frame: &Frame) -> Result<(), FrameError> {
        Ok(frame.write(&mut self.0).await?)
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        Ok(self.0.flush().await?)
    }

    /// Sends what is queued, and says nothing more: the node accepts no more messages for this client, gives it those
    /// that it accepted already, and ends.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        Ok(self.0.shutdown().await?)
    }
}
