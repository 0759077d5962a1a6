//! Bodies of requests, read within bounds, and the pictures in them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::{StreamExt, stream};
use percent_encoding::percent_decode_str;
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};
use tokio::time::timeout;

use crate::App;
use crate::refusal::Refusal;

/// A picture as it was sent.
pub(crate) struct Upload {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Their share of what bodies may take.
    pub(crate) share: Arc<OwnedSemaphorePermit>,
}

/// A body, and its share of what all may take.
struct Received {
    bytes: Vec<u8>,
    share: OwnedSemaphorePermit,
}

/// Reads the pictures of a request: its whole body, or the files of a form.
pub(crate) async fn uploads(
    app: &App,
    head: &Parts,
    body: Body,
    name: Option<String>,
) -> Result<Vec<Upload>, Refusal> {
    let headers = &head.headers;
    if let Err(refusal) = check_head(app, headers) {
        linger(headers, body);
        return Err(refusal);
    }
    let mut stream = body.into_data_stream();
    let time = app.options.timeout;
    let received = match timeout(time, receive(app, &mut stream)).await {
        Ok(Ok(received)) => received,
        Ok(Err(refusal)) => {
            drain(stream);
            return Err(refusal);
        }
        Err(_) => return Err(too_slow(time)),
    };
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let uploads = match multer::parse_boundary(kind) {
        Ok(boundary) => form(received, boundary).await?,
        Err(_) if kind.starts_with("multipart/") => {
            return Err(Refusal::bad_request(
                "a form must be multipart/form-data with a boundary",
            ));
        }
        Err(_) => vec![Upload {
            name: name.unwrap_or_else(|| "image".to_string()),
            bytes: received.bytes,
            share: Arc::new(received.share),
        }],
    };
    match uploads.first() {
        None => Err(Refusal::bad_request("the form has no file")),
        Some(first) if first.bytes.is_empty() && uploads.len() == 1 => Err(Refusal::bad_request(
            "the body is empty: send a picture, as `curl --data-binary @photo.jpg` does",
        )),
        Some(_) => Ok(uploads),
    }
}

/// Rejects what the head of a request announces, before anything is read.
fn check_head(app: &App, headers: &HeaderMap) -> Result<(), Refusal> {
    let length = headers.get(header::CONTENT_LENGTH);
    let length: Option<u64> = length.and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length| length > app.options.max_body as u64) {
        return Err(body_too_large(app));
    }
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "compressed bodies are not supported: send the picture without Content-Encoding",
        ));
    }
    if app.queue.len() >= app.queue.capacity() {
        return Err(queue_full(app));
    }
    Ok(())
}

pub(crate) fn queue_full(app: &App) -> Refusal {
    let capacity = app.queue.capacity();
    Refusal::too_many(format!(
        "{capacity} pictures are waiting already: try again later"
    ))
}

fn body_too_large(app: &App) -> Refusal {
    let most = app.options.max_body;
    Refusal::too_large(format!(
        "the body is larger than the {most} bytes that are read"
    ))
}

fn too_slow(time: Duration) -> Refusal {
    let message = format!("the body did not arrive within {} s", time.as_secs_f32());
    Refusal::new(StatusCode::REQUEST_TIMEOUT, message)
}

async fn receive(app: &App, stream: &mut BodyDataStream) -> Result<Received, Refusal> {
    let patience = app.options.patience();
    let take = |bytes: usize| {
        let bytes = u32::try_from(bytes).map_err(|_| body_too_large(app))?;
        let share = app.body_bytes.clone().try_acquire_many_owned(bytes);
        share.map_err(|error: TryAcquireError| {
            tracing::warn!(%error, "request bodies use all the memory set aside for them");
            Refusal::too_many("too many bodies are being received: try again later")
        })
    };
    let mut received = Received {
        bytes: Vec::new(),
        share: take(0)?,
    };
    loop {
        let next = timeout(patience, stream.next()).await;
        let Some(chunk) = next.map_err(|_| too_slow(patience))? else {
            return Ok(received);
        };
        let chunk =
            chunk.map_err(|error| Refusal::bad_request(format!("the body broke off: {error}")))?;
        if received.bytes.len() + chunk.len() > app.options.max_body {
            return Err(body_too_large(app));
        }
        received.share.merge(take(chunk.len())?);
        received.bytes.extend_from_slice(&chunk);
    }
}

/// Lets a client send on for a moment what is not wanted: one that cannot would not read why.
pub(crate) fn linger(headers: &HeaderMap, body: Body) {
    // Reading would ask for what is not sent before it is asked for.
    if !headers.contains_key(header::EXPECT) {
        drain(body.into_data_stream());
    }
}

fn drain(mut stream: BodyDataStream) {
    const MOST: usize = 64 << 20;
    tokio::spawn(timeout(Duration::from_secs(3), async move {
        let mut read = 0;
        while let Some(Ok(chunk)) = stream.next().await
            && read < MOST
        {
            read += chunk.len();
        }
    }));
}

/// The files of a form, under whatever field names.
async fn form(received: Received, boundary: String) -> Result<Vec<Upload>, Refusal> {
    let damaged = |error: multer::Error| {
        let mut message = format!("the form is damaged: {error}");
        if let Some(cause) = std::error::Error::source(&error) {
            message = format!("{message}: {cause}");
        }
        Refusal::bad_request(message)
    };
    let share = Arc::new(received.share);
    let bytes = received.bytes;
    let stream = stream::once(async move { Ok::<_, Infallible>(bytes) });
    let mut form = multer::Multipart::new(stream, boundary);
    let mut uploads = Vec::new();
    while let Some(field) = form.next_field().await.map_err(damaged)? {
        let name = field.file_name().map(str::to_string);
        let Some(name) = name.or_else(|| encoded_name(field.headers())) else {
            let field = field.name().unwrap_or("").to_string();
            return Err(Refusal::bad_request(format!(
                "the field `{field}` of the form is not a file; thresholds belong in the query: \
                 /detect?score_thresh=0.5"
            )));
        };
        let bytes = field.bytes().await.map_err(damaged)?;
        uploads.push(Upload {
            name,
            bytes: bytes.into(),
            share: share.clone(),
        });
    }
    Ok(uploads)
}

/// A file's name as `filename*=UTF-8''caf%C3%A9.jpg` (RFC 8187), by which some clients write what is not ASCII.
fn encoded_name(headers: &HeaderMap) -> Option<String> {
    let disposition = headers.get(header::CONTENT_DISPOSITION)?.to_str().ok()?;
    let (_, value) = disposition.split_once("filename*=")?;
    let (_, name) = value.split_once('\'')?.1.split_once('\'')?;
    let name = name.split(';').next()?.trim();
    Some(percent_decode_str(name).decode_utf8_lossy().into_owned())
}
