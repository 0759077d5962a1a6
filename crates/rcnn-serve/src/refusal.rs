//! Answers to requests that cannot be met: a status, and a sentence in JSON.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rcnn_image::{ImageError, ImageErrorKind};
use serde_json::json;

/// Why a request is not met.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl ToString) -> Self {
        Self {
            status,
            message: message.to_string(),
        }
    }

    pub(crate) fn bad_request(message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn too_large(message: impl ToString) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    pub(crate) fn too_many(message: impl ToString) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, message)
    }

    pub(crate) fn unavailable(message: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

/// A picture that cannot be decoded is the client's fault, whatever is wrong with it.
impl From<ImageError> for Refusal {
    fn from(error: ImageError) -> Self {
        let status = match &error.kind {
            ImageErrorKind::TooLarge { .. } | ImageErrorKind::Memory(_) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            ImageErrorKind::NotAnImage(_) | ImageErrorKind::Unsupported(_) => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            ImageErrorKind::Empty => StatusCode::BAD_REQUEST,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.message }).to_string();
        with_json(self, body)
    }
}

/// The answer with another body than the sentence alone.
pub(crate) fn with_json(refusal: Refusal, body: String) -> Response {
    let mut response = json_response(refusal.status, body);
    let headers = response.headers_mut();
    match refusal.status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response.extensions_mut().insert(refusal);
    response
}

/// An answer in JSON.
pub(crate) fn json_response(status: StatusCode, body: String) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, body + "\n").into_response()
}
