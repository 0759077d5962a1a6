//! Who may ask, and what is written down about it.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::App;
use crate::body::linger;
use crate::detect::Summary;
use crate::refusal::Refusal;

/// Lets requests with the right token pass, or all where there is none.
pub(crate) async fn authorize(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let message = match (&app.options.token, bearer(request.headers())) {
        (None, _) => return next.run(request).await,
        (Some(token), Some(given)) if bool::from(token.as_bytes().ct_eq(given.as_bytes())) => {
            return next.run(request).await;
        }
        (Some(_), Some(_)) => "the token is not this server's",
        (Some(_), None) => "a token is needed: `Authorization: Bearer TOKEN`",
    };
    let (head, body) = request.into_parts();
    linger(&head.headers, body);
    Refusal::new(StatusCode::UNAUTHORIZED, message).into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

/// A request until it is answered, or its client hangs up.
struct Seen {
    app: Arc<App>,
    start: Instant,
    method: Method,
    path: String,
    is_answered: bool,
}

/// Counts and logs each request.
pub(crate) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut seen = Seen {
        app,
        start: Instant::now(),
        method: request.method().clone(),
        path: request.uri().path().chars().take(100).collect(),
        is_answered: false,
    };
    let response = next.run(request).await;
    seen.answered(&response);
    response
}

impl Seen {
    fn answered(&mut self, response: &Response) {
        self.is_answered = true;
        let (status, time) = (response.status().as_u16(), self.start.elapsed());
        let metrics = &self.app.metrics;
        metrics.request(&self.path, status, time);
        let (method, path, ms) = (&self.method, &self.path, time.as_millis());
        let summary = response.extensions().get::<Summary>();
        match (response.extensions().get::<Refusal>(), summary) {
            (Some(Refusal { message: why, .. }), _) => {
                tracing::info!(%method, path, status, ms, why, "refused");
            }
            (
                None,
                Some(&Summary {
                    pictures,
                    detections,
                }),
            ) => {
                tracing::info!(%method, path, status, ms, pictures, detections, "detected");
            }
            // Probes and pages would drown the rest.
            (None, None) => tracing::debug!(%method, path, status, ms, "answered"),
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if !self.is_answered {
            self.app.metrics.hang_up();
            let ms = self.start.elapsed().as_millis();
            tracing::info!(method = %self.method, path = self.path, ms, "the client hung up");
        }
    }
}
