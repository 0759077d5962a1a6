//! All that is asked for with GET: the page for browsers, and the state of the service.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::App;
use crate::body::linger;
use crate::metrics::Gauges;
use crate::refusal::{Refusal, json_response};

/// Nothing from elsewhere: the page says so, and browsers hold it to that.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' blob: data:; form-action 'none'; frame-ancestors 'none'; \
                      base-uri 'none'";

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers: [(HeaderName, &str); 4] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

pub(crate) async fn page() -> Response {
    asset("text/html; charset=utf-8", include_str!("page/index.html"))
}

pub(crate) async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("page/page.css"))
}

pub(crate) async fn script() -> Response {
    let kind = "text/javascript; charset=utf-8";
    asset(kind, include_str!("page/page.js"))
}

/// The process is alive.
pub(crate) async fn health() -> Response {
    json_response(StatusCode::OK, json!({ "status": "ok" }).to_string())
}

/// Whether requests are answered: the model is loaded, and the server is not stopping.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    match is_ready(&app) {
        Ok(()) => Ok(json_response(
            StatusCode::OK,
            json!({ "status": "ready" }).to_string(),
        )),
        Err(reason) => Err(Refusal::unavailable(reason)),
    }
}

fn is_ready(app: &App) -> Result<(), &'static str> {
    match app.model.get() {
        _ if app.is_stopping.load(Ordering::Relaxed) => Err("the server is stopping"),
        None => Err("the model is still being loaded"),
        Some(_) => Ok(()),
    }
}

/// Classes and settings of the model, and limits on requests.
pub(crate) async fn model(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    is_ready(&app).map_err(Refusal::unavailable)?;
    let mut model = app.model.get().map_or(json!({}), |model| model.to_json());
    let options = &app.options;
    model["version"] = json!(env!("CARGO_PKG_VERSION"));
    model["limits"] = json!({
        "body_bytes": options.max_body,
        "picture_pixels": options.max_pixels,
        "pictures": app.queue.capacity(),
        "batch": options.max_batch,
        "seconds": options.timeout.as_secs_f64(),
    });
    Ok(json_response(StatusCode::OK, model.to_string()))
}

pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let gauges = Gauges {
        is_ready: is_ready(&app).is_ok(),
        queued: app.queue.len(),
        capacity: app.queue.capacity(),
        connections: (app.options.max_connections)
            .saturating_sub(app.connections.available_permits()),
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.to_text(&gauges)).into_response()
}

pub(crate) async fn not_found(request: Request) -> Refusal {
    let message = "there is no such page; POST a picture to /detect, or look at /, /model, /health, /ready \
                   and /metrics";
    let (head, body) = request.into_parts();
    linger(&head.headers, body);
    Refusal::new(StatusCode::NOT_FOUND, message)
}

pub(crate) async fn wrong_method(request: Request) -> Refusal {
    let message = match request.uri().path() {
        "/detect" => "send the picture with POST",
        _ => "read this with GET",
    };
    let (head, body) = request.into_parts();
    linger(&head.headers, body);
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
