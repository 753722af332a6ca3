//! Bodies of requests: whole, bounded, and soon, so that those that never end keep nobody out.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use axum::RequestExt as _;
use axum::body::{Bytes, HttpBody as _};
use axum::extract::Request;
use axum::http::StatusCode;
use bytes::BytesMut;
use http_body_util::{BodyExt as _, LengthLimitError};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::PATIENCE;
use super::api::ApiError;

/// Largest component that may be uploaded.
pub(super) const MAX_PLUGIN: usize = 64 << 20;
/// Bodies up to this length have to come within [`PATIENCE`]; they take no place among the uploads.
const SMALL: u64 = 64 << 10;
/// Larger bodies that may be on their way at a time; more are refused.
const MAX_UPLOADS: usize = 16;
/// A larger body must have come by then, and something of it within each [`PATIENCE`].
const UPLOAD: Duration = Duration::from_secs(60);

/// Places for uploads; the extension of a router whose handlers read a [`body`].
#[derive(Clone)]
pub(super) struct Uploads(Arc<Semaphore>);

impl Default for Uploads {
    fn default() -> Self {
        Uploads(Arc::new(Semaphore::new(MAX_UPLOADS)))
    }
}

/// The whole body. One that says it is too large is refused before it comes.
pub(super) async fn body(request: Request) -> Result<Bytes, ApiError> {
    let announced = request.body().size_hint();
    if announced.lower() > MAX_PLUGIN as u64 {
        return Err(too_large());
    }
    let small = announced.upper().is_some_and(|most| most <= SMALL);
    let uploads = request.extensions().get().cloned().unwrap_or_else(Uploads::default);
    let place = if small { None } else { Some(uploads.0.try_acquire_owned().map_err(|_| busy())?) };
    let whole = timeout(if small { PATIENCE } else { UPLOAD }, collect(request)).await;
    drop(place);
    whole.unwrap_or_else(|_| Err(late()))
}

async fn collect(request: Request) -> Result<Bytes, ApiError> {
    let mut body = request.with_limited_body().into_body();
    let mut bytes = BytesMut::new();
    while let Some(frame) = timeout(PATIENCE, body.frame()).await.map_err(|_| late())? {
        let frame =
            frame.map_err(|error| match error.source().is_some_and(|why| why.is::<LengthLimitError>()) {
                true => too_large(),
                false => ApiError::new(StatusCode::BAD_REQUEST, error, "send it again"),
            })?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    Ok(bytes.freeze())
}

fn too_large() -> ApiError {
    let hint = "a component has at most 64 MiB, the text of a document at most 8 MiB";
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large", hint)
}

fn busy() -> ApiError {
    let error = format!("{MAX_UPLOADS} other uploads are on their way");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error, "try again in a minute")
}

fn late() -> ApiError {
    let error = format!(
        "the body did not come: small ones have {} s, others {} s and never {} s without a byte",
        PATIENCE.as_secs(),
        UPLOAD.as_secs(),
        PATIENCE.as_secs()
    );
    ApiError::new(StatusCode::REQUEST_TIMEOUT, error, "send it again")
}
