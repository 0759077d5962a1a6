//! `POST /detect`: pictures in, their objects as JSON out.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::future::join_all;
use rcnn_image::{Header, decode_rgb};
use rcnn_types::{ImageRecord, Instances, MASK_THRESHOLD, MaskFormat, Size};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::App;
use crate::batches::{Job, Places};
use crate::body::{Upload, linger, queue_full, uploads};
use crate::detector::ModelInfo;
use crate::query::{Parameters, Wanted, rejected};
use crate::refusal::{Refusal, json_response, with_json};

/// Outcome of a request, for its line in the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) pictures: usize,
    pub(crate) detections: usize,
}

/// A picture with its objects, or why it has none.
struct Answer {
    name: String,
    found: Result<(Size, Instances), Refusal>,
}

pub(crate) async fn detect(
    State(app): State<Arc<App>>,
    query: Result<Query<Parameters>, QueryRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let (name, wanted) = match wanted(&app, query) {
        Ok(wanted) => wanted,
        Err(refusal) => {
            linger(&head.headers, body);
            return Err(refusal);
        }
    };
    let uploads = uploads(&app, &head, body, name).await?;
    let capacity = app.queue.capacity();
    if uploads.len() > capacity {
        let sent = uploads.len();
        return Err(Refusal::too_large(format!(
            "{sent} pictures are more than the {capacity} that are taken at once"
        )));
    }
    let places = app.queue.admit(uploads.len());
    let places = places.ok_or_else(|| queue_full(&app))?;
    let answers = uploads
        .into_iter()
        .map(|upload| answer(&app, &places, upload, wanted.clone()));
    let time = app.options.timeout;
    let answers = timeout(time, join_all(answers)).await.map_err(|_| {
        let seconds = time.as_secs_f32();
        Refusal::unavailable(format!(
            "the detections were not computed within {seconds} s: the server has too much to do"
        ))
    })?;
    drop(places);
    spawn_blocking(move || respond(&app, answers, wanted.masks))
        .await
        .map_err(|_| failed("the answer could not be written"))
}

fn failed(message: &str) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
}

fn model(app: &App) -> Result<&ModelInfo, Refusal> {
    let model = app.model.get();
    model.ok_or_else(|| Refusal::unavailable("the model is still being loaded: try again later"))
}

fn wanted(
    app: &App,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<(Option<String>, Wanted), Refusal> {
    let Query(parameters) = query.map_err(|rejection| rejected(&rejection))?;
    let wanted = parameters.check(model(app)?)?;
    Ok((parameters.name, wanted))
}

async fn answer(app: &App, places: &Places, upload: Upload, wanted: Wanted) -> Answer {
    let name = upload.name.clone();
    let found = match decode(app, upload).await {
        Ok((picture, pixels)) => {
            let size = Size::from_dimensions(picture.dimensions());
            compute(app, places, picture, pixels, &wanted)
                .await
                .map(|mut found| {
                    wanted.select(&mut found);
                    (size, found)
                })
        }
        Err(refusal) => {
            places.give_up();
            Err(refusal)
        }
    };
    app.metrics
        .picture(found.as_ref().map(|(_, found)| found.len()).ok());
    Answer { name, found }
}

/// Decodes a picture once its header says that it is small enough and there is room for its pixels.
async fn decode(
    app: &App,
    upload: Upload,
) -> Result<(image::RgbImage, OwnedSemaphorePermit), Refusal> {
    let Upload { name, bytes, share } = upload;
    let gave_up = |_| failed("the decoder gave up");
    let read = move || (Header::from_bytes(&name, &bytes), name, bytes);
    let (header, name, bytes) = spawn_blocking(read).await.map_err(gave_up)?;
    let size = header?.stored;
    let most = app.options.max_pixels;
    if size.pixels() > most {
        let Size { height, width } = size;
        return Err(Refusal::too_large(format!(
            "{name}: {width}x{height} pixels are more than the {most} that are read"
        )));
    }
    let pixels = u32::try_from(size.pixels()).unwrap_or(u32::MAX);
    let pixels = app.pixels.clone().acquire_many_owned(pixels).await;
    let decoder = app.decoders.clone().acquire_owned().await;
    let (Ok(pixels), Ok(decoder)) = (pixels, decoder) else {
        return Err(Refusal::unavailable("the server is stopping"));
    };
    let picture = spawn_blocking(move || {
        // With the permits, which count until the work ends, though the client may hang up.
        let _held = (share, decoder);
        decode_rgb(&name, bytes).map(|picture| (picture, pixels))
    });
    Ok(picture.await.map_err(gave_up)??)
}

async fn compute(
    app: &App,
    places: &Places,
    picture: image::RgbImage,
    pixels: OwnedSemaphorePermit,
    wanted: &Wanted,
) -> Result<Instances, Refusal> {
    let (reply, found) = oneshot::channel();
    let size = Size::from_dimensions(picture.dimensions());
    places.push(Job {
        padded: model(app)?.padded_size(size),
        thresholds: wanted.thresholds,
        picture,
        reply,
        _pixels: pixels,
    });
    found
        .await
        .unwrap_or_else(|_| Err(failed("the detector stopped")))
}

/// Writes what `rcnn detect --format json` prints. Where pictures failed, the status is that of the first, and
/// the others are in the answer all the same.
fn respond(app: &App, answers: Vec<Answer>, masks: MaskFormat) -> Response {
    let names = app
        .model
        .get()
        .map_or(&[][..], |model| &model.config.class_names);
    let (mut records, mut errors) = (Vec::new(), Vec::new());
    let mut summary = Summary {
        pictures: answers.len(),
        detections: 0,
    };
    for Answer { name, found } in answers {
        match found {
            Ok((size, mut found)) => {
                found.paste_masks(size, MASK_THRESHOLD);
                summary.detections += found.len();
                let record = ImageRecord::new(&name, size, &found, names, masks);
                records.push(serde_json::to_string(&record).expect("numbers and text"));
            }
            Err(refusal) => {
                records.push(json!({ "image": name, "error": refusal.message }).to_string());
                errors.push(refusal);
            }
        }
    }
    let mut list = format!("[{}]", records.join(",\n "));
    let count = errors.len();
    let mut response = match errors.into_iter().next() {
        None => json_response(StatusCode::OK, list),
        Some(mut first) => {
            if count > 1 {
                let more = count - 1;
                first.message = format!("{}; and {more} more of the pictures", first.message);
            }
            let error = json!(first.message);
            if summary.pictures == 1 {
                list = format!("{{\"error\": {error}}}");
            } else {
                list = format!("{{\"error\": {error}, \"images\":\n{list}}}");
            }
            with_json(first, list)
        }
    };
    response.extensions_mut().insert(summary);
    response
}
