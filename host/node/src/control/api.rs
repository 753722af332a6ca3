//! The control API; `CONTROL.md` documents it for people.

use std::collections::BTreeMap;

use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use overlan_contract::Kind;
use overlan_wire::KeyId;
use overlan_wire::limits::MAX_DOCUMENT;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::body::{MAX_PLUGIN, Uploads, body};
use super::document;
use crate::config::PluginSource;
use crate::handle::{NodeHandle, Stopped};
use crate::keyring::{KeyringChange, KeyringFailure};
use crate::policy::PolicyError;

/// Largest text of a cluster document, which says in words what takes an eighth of it at most.
const MAX_DOCUMENT_TEXT: usize = 8 * MAX_DOCUMENT;

/// An error, and what to do next where that is not in the error.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ApiError {
    #[serde(skip)]
    status: u16,
    pub(crate) error: String,
    pub(crate) hint: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: impl ToString, hint: &str) -> Self {
        ApiError { status: status.as_u16(), error: error.to_string(), hint: hint.to_owned() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
    }
}

impl From<Stopped> for ApiError {
    fn from(stopped: Stopped) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, stopped, "start it again")
    }
}

impl From<PolicyError> for ApiError {
    fn from(error: PolicyError) -> Self {
        let (status, hint) = match &error {
            PolicyError::UnknownBuiltin(_) => (StatusCode::NOT_FOUND, ""),
            PolicyError::Load(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "`overlan policy check FILE` tells more")
            }
            PolicyError::Limit(_) => (StatusCode::BAD_REQUEST, "`overlan policy show KIND` lists the limits"),
            PolicyError::SelfTest(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "the active policy stays; correct this one and try it with `overlan policy test FILE`",
            ),
            PolicyError::CompileDeadline(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "build it optimised and stripped")
            }
            PolicyError::Host(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "try again when this host has more to give")
            }
            PolicyError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "try again in a minute"),
            PolicyError::NothingBefore(_) => {
                (StatusCode::CONFLICT, "`overlan policy set KIND FILE` chooses one")
            }
            PolicyError::NoShadow(_) => {
                (StatusCode::CONFLICT, "`overlan policy shadow KIND FILE` begins one")
            }
            PolicyError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "start the node again"),
        };
        ApiError::new(status, error, hint)
    }
}

impl From<KeyringFailure> for ApiError {
    fn from(failure: KeyringFailure) -> Self {
        let status = match &failure {
            KeyringFailure::NoKeys => StatusCode::CONFLICT,
            KeyringFailure::File { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            KeyringFailure::Keyring { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            KeyringFailure::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        ApiError::new(status, failure, "`overlan keys list` shows the keys")
    }
}

pub(super) type Answer = Result<Response, ApiError>;

pub(super) fn ok(value: impl Serialize) -> Answer {
    Ok(Json(value).into_response())
}

pub(super) fn router(node: NodeHandle) -> Router {
    let watchers = document::watchers();
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/members", get(members))
        .route("/v1/table", get(table))
        .route("/v1/paths", get(paths))
        .route("/v1/plan", get(plan))
        .route("/v1/routes", get(routes))
        .route("/v1/policy", get(policy_list))
        .route("/v1/policy/{kind}", get(policy_show).post(policy_set).delete(policy_unset))
        .route("/v1/policy/{kind}/rollback", post(policy_rollback))
        .route(
            "/v1/policy/{kind}/shadow",
            get(policy_shadow_show).post(policy_shadow).delete(policy_shadow_stop),
        )
        .route(
            "/v1/document",
            get(document::get).post(document::apply).layer(DefaultBodyLimit::max(MAX_DOCUMENT_TEXT)),
        )
        .route("/v1/components", post(document::offer))
        .route("/v1/watch", get(move |State(node)| document::watch(node, watchers)))
        .route("/v1/keys", get(keys).post(keys_add))
        .route("/v1/keys/reload", post(keys_reload))
        .route("/v1/keys/{id}", delete(keys_retire))
        .route("/v1/keys/{id}/promote", post(keys_promote))
        .route("/v1/forget/{node}", post(forget))
        .route("/v1/leave", post(leave))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(MAX_PLUGIN))
        .layer(Extension(Uploads::default()))
        .with_state(node)
}

async fn status(State(node): State<NodeHandle>) -> Answer {
    ok(node.status().await?)
}

async fn members(State(node): State<NodeHandle>) -> Answer {
    ok(node.members().await?)
}

async fn table(State(node): State<NodeHandle>) -> Answer {
    ok(node.table().await?)
}

async fn paths(State(node): State<NodeHandle>) -> Answer {
    ok(node.paths().await?)
}

async fn plan(State(node): State<NodeHandle>) -> Answer {
    ok(node.plan().await?)
}

async fn policy_list(State(node): State<NodeHandle>) -> Answer {
    ok(node.policy_list())
}

async fn no_path() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no such path", "host/node/CONTROL.md lists the paths")
}

async fn no_method() -> ApiError {
    let hint = "host/node/CONTROL.md lists the methods of each path";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method", hint)
}

async fn routes(State(node): State<NodeHandle>) -> Answer {
    let (plan, report) = node.routes();
    ok(json!({ "plan": plan, "report": report }))
}

fn kind(text: &str) -> Result<Kind, ApiError> {
    text.parse()
        .map_err(|error| ApiError::new(StatusCode::NOT_FOUND, error, "`overlan policy list` shows the kinds"))
}

async fn policy_show(State(node): State<NodeHandle>, Path(name): Path<String>) -> Answer {
    let kind = kind(&name)?;
    ok(node.policy_list().into_iter().find(|status| status.kind == kind))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetBuiltin {
    builtin: String,
    #[serde(default)]
    config: BTreeMap<String, String>,
    #[serde(default)]
    limits: BTreeMap<String, u64>,
}

/// How an uploaded component is called.
const NAME: &str = "name";
/// As many bytes as the cluster document allows.
const MAX_PLUGIN_NAME: usize = overlan_core::document::MAX_TEXT;
/// Before the name of a limit.
const LIMIT: &str = "limit.";
/// Before a key of the plugin's configuration. It may be left out where the key is neither [`NAME`] nor begins as these.
const CONFIG: &str = "config.";

/// What a request gives to swap in or to shadow with: name, component, configuration, limits.
type Upload = (String, Vec<u8>, Vec<(String, String)>, Vec<(String, u64)>);

async fn upload(parameters: Vec<(String, String)>, request: Request) -> Result<Upload, ApiError> {
    let is_json = request
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    let hint = "send a component with --data-binary, or {\"builtin\": \"NAME\"} as application/json";
    let bad = |error: String| ApiError::new(StatusCode::BAD_REQUEST, error, hint);
    let wasm = body(request).await?;
    if is_json {
        let set: SetBuiltin = serde_json::from_slice(&wasm).map_err(|error| bad(error.to_string()))?;
        let source = PluginSource::Builtin(set.builtin);
        let (name, wasm) = crate::node::read_plugin(&source)?;
        return Ok((name, wasm, set.config.into_iter().collect(), set.limits.into_iter().collect()));
    }
    if wasm.is_empty() {
        return Err(bad("there is no component in the request".to_owned()));
    }
    let (mut name, mut config, mut limits) = (None, BTreeMap::new(), BTreeMap::new());
    for (key, value) in parameters {
        let repeated = if key == NAME {
            name.replace(value).is_some()
        } else if let Some(limit) = key.strip_prefix(LIMIT) {
            let number =
                value.parse().map_err(|_| bad(format!("{key} is {value:?}; it must be a whole number")))?;
            limits.insert(limit.to_owned(), number).is_some()
        } else {
            config.insert(key.strip_prefix(CONFIG).unwrap_or(&key).to_owned(), value).is_some()
        };
        if repeated {
            return Err(bad(format!("the parameter {key} is given twice")));
        }
    }
    let name = name.unwrap_or_else(|| "upload".to_owned());
    if name.is_empty() || name.len() > MAX_PLUGIN_NAME || name.chars().any(char::is_control) {
        return Err(bad(format!("a plugin's name has 1 to {MAX_PLUGIN_NAME} bytes, all of them printable")));
    }
    if name.starts_with("builtin:") {
        return Err(bad(format!("{name} names a shipped plugin; an upload takes another name")));
    }
    Ok((name, wasm.to_vec(), config.into_iter().collect(), limits.into_iter().collect()))
}

async fn policy_set(
    State(node): State<NodeHandle>,
    Path(name): Path<String>,
    Query(parameters): Query<Vec<(String, String)>>,
    request: Request,
) -> Answer {
    let kind = kind(&name)?;
    let (name, wasm, config, limits) = upload(parameters, request).await?;
    ok(node.policy_set_limited(kind, name, wasm, config, limits).await?)
}

async fn policy_shadow(
    State(node): State<NodeHandle>,
    Path(name): Path<String>,
    Query(parameters): Query<Vec<(String, String)>>,
    request: Request,
) -> Answer {
    let kind = kind(&name)?;
    let (name, wasm, config, limits) = upload(parameters, request).await?;
    ok(node.policy_shadow(kind, name, wasm, config, limits).await?)
}

async fn policy_shadow_show(State(node): State<NodeHandle>, Path(name): Path<String>) -> Answer {
    ok(node.policy_shadow_show(kind(&name)?))
}

async fn policy_shadow_stop(State(node): State<NodeHandle>, Path(name): Path<String>) -> Answer {
    ok(node.policy_shadow_stop(kind(&name)?)?)
}

async fn policy_unset(State(node): State<NodeHandle>, Path(name): Path<String>) -> Answer {
    ok(node.policy_unset(kind(&name)?).await?)
}

async fn policy_rollback(State(node): State<NodeHandle>, Path(name): Path<String>) -> Answer {
    ok(node.policy_rollback(kind(&name)?).await?)
}

async fn keys(State(node): State<NodeHandle>) -> Answer {
    ok(node.keyring().await?)
}

async fn keys_add(State(node): State<NodeHandle>, request: Request) -> Answer {
    let text = String::from_utf8_lossy(&body(request).await?).into_owned();
    ok(node.change_keyring(KeyringChange::Add(text)).await?)
}

async fn keys_reload(State(node): State<NodeHandle>) -> Answer {
    ok(node.change_keyring(KeyringChange::Reload).await?)
}

async fn keys_promote(State(node): State<NodeHandle>, Path(id): Path<String>) -> Answer {
    ok(node.change_keyring(KeyringChange::Promote(key_id(&id)?)).await?)
}

async fn keys_retire(State(node): State<NodeHandle>, Path(id): Path<String>) -> Answer {
    ok(node.change_keyring(KeyringChange::Retire(key_id(&id)?)).await?)
}

fn key_id(text: &str) -> Result<KeyId, ApiError> {
    let wrong = || {
        let error = format!("{text:?} is no key id: it has eight hexadecimal digits");
        ApiError::new(StatusCode::BAD_REQUEST, error, "`overlan keys list` shows the keys")
    };
    let digits =
        Some(text).filter(|text| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).map(KeyId).ok_or_else(wrong)
}

async fn forget(State(node): State<NodeHandle>, Path(name): Path<String>) -> Answer {
    let hint = "`overlan members` shows who is down or left";
    node.forget(&name).await.map_err(|error| ApiError::new(StatusCode::CONFLICT, error, hint))?;
    ok(json!({ "forgotten": name }))
}

async fn leave(State(node): State<NodeHandle>) -> Answer {
    let leaving = node.clone();
    // The answer goes out before the node does.
    tokio::spawn(async move { leaving.leave().await });
    ok(json!({ "leaving": node.config().name }))
}
