//! The cluster document and what happens, over the control API.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use overlan_core::ApplyError;
use overlan_core::document::SignedDocument;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::api::{Answer, ApiError, ok};
use super::body::body;
use crate::document::{ApplyFailure, Content};
use crate::handle::NodeHandle;

/// Clients that watch at a time; more are refused, so that they keep nobody from controlling the node.
const MAX_WATCHERS: usize = 64;
/// An empty line goes out where nothing else did for so long: only what is written tells that the client is gone.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Places for clients that watch.
pub(super) fn watchers() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_WATCHERS))
}

/// Where to look for what a document should be made from.
const IN_FORCE: &str = "`overlan get` prints the one in force";

impl From<ApplyFailure> for ApiError {
    fn from(failure: ApplyFailure) -> Self {
        let (status, hint) = match &failure {
            ApplyFailure::Document(_) | ApplyFailure::Invalid(_) => (StatusCode::BAD_REQUEST, IN_FORCE),
            ApplyFailure::Refused(ApplyError::OperatorsDiffer(_)) => (StatusCode::CONFLICT, "overlan status"),
            ApplyFailure::Refused(ApplyError::NoQuorum) => (StatusCode::CONFLICT, "overlan members"),
            ApplyFailure::Refused(ApplyError::NotSigned) => {
                (StatusCode::CONFLICT, "`overlan apply --help` or `overlan policy push --help`")
            }
            ApplyFailure::Refused(_) | ApplyFailure::Overtaken(_) => (StatusCode::CONFLICT, IN_FORCE),
            ApplyFailure::NoComponent(_) => (StatusCode::UNPROCESSABLE_ENTITY, IN_FORCE),
            ApplyFailure::Member { .. } => {
                let hint = "`overlan status` and `overlan policy show KIND` at that member tell more";
                (StatusCode::UNPROCESSABLE_ENTITY, hint)
            }
            ApplyFailure::Stopped(_) => (StatusCode::SERVICE_UNAVAILABLE, "start the node again"),
        };
        ApiError::new(status, failure, hint)
    }
}

pub(super) async fn get(State(node): State<NodeHandle>) -> Answer {
    ok(node.document().await?)
}

/// A text, or as `application/octet-stream` a document that is made already.
pub(super) async fn apply(State(node): State<NodeHandle>, request: Request) -> Answer {
    let content_type = request.headers().get("content-type").and_then(|value| value.to_str().ok());
    let made = content_type == Some("application/octet-stream");
    let bytes = body(request).await?;
    let bad = |error: String| ApiError::new(StatusCode::BAD_REQUEST, error, IN_FORCE);
    if made {
        let document = SignedDocument::parse(bytes).map_err(|error| bad(error.to_string()))?;
        return ok(node.apply_document(document).await?);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| bad("the document is not UTF-8".to_owned()))?;
    ok(node.apply(&Content::parse(text).map_err(ApplyFailure::from)?).await?)
}

/// The component in the body, for a document that will name it.
pub(super) async fn offer(State(node): State<NodeHandle>, request: Request) -> Answer {
    let wasm = body(request).await?;
    let offered = node.offer_component(wasm).await;
    ok(offered.map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, error, "`overlan policy check FILE` tells more")
    })?)
}

/// One JSON object a line for as long as the client reads, and empty lines where nothing happens.
pub(super) async fn watch(node: NodeHandle, watchers: Arc<Semaphore>) -> Result<Response, ApiError> {
    let place = watchers.try_acquire_owned().map_err(|_| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many clients watch already", "close one")
    })?;
    let lines = stream::unfold((node.watch_lines().await?, place), async |(mut watch, place)| {
        let mut line = match timeout(SIGN_OF_LIFE, watch.next()).await {
            Ok(event) => serde_json::to_vec(&event?).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        line.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(line)), (watch, place)))
    });
    Ok(([("content-type", "application/x-ndjson")], Body::from_stream(lines)).into_response())
}
