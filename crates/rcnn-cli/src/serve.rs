//! `rcnn serve`: a detector as an HTTP service.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::weights::Weights;
use rcnn_serve::{Detector, Options, Server, interrupted};

use crate::Outcome;
use crate::backend::{ComputeArgs, Job, run_on};
use crate::events::{LogFormat, set_format};
use crate::source::{ModelArgs, positive};
use crate::thresholds::ThresholdArgs;

/// Variable of the environment that holds the token, where `--token` is not given.
const TOKEN: &str = "RCNN_TOKEN";

/// Find objects in pictures that come over HTTP
///
/// POST /detect takes a picture as its body, or several as the files of a form, and returns what `rcnn detect
/// --format json` prints. Its query parameters are score_thresh, nms_thresh, max_dets, classes, masks (rle,
/// polygon, none) and name. GET / is a page to try it in a browser; GET /model, /health, /ready and /metrics
/// (Prometheus) describe model and server. SIGTERM and ctrl-c stop it once running requests are finished.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn serve                                      # blood cells, at http://127.0.0.1:8000
  rcnn serve --weights COCO_V1 --score-thresh 0.3
  RCNN_TOKEN=secret rcnn serve --weights cells.bpk --listen 0.0.0.0:80 --log json
  curl --data-binary @photo.jpg 'http://127.0.0.1:8000/detect?score_thresh=0.5'
  curl -F a=@a.jpg -F b=@b.png http://127.0.0.1:8000/detect")]
pub(crate) struct ServeArgs {
    /// Weights: a .pth, .safetensors or .bpk file, or the name of published weights such as COCO_V1
    #[arg(long, short, value_name = "FILE|NAME", default_value = rcnn_burn::bundled::BLOOD_CELLS)]
    weights: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    thresholds: ThresholdArgs,
    /// Address and port to listen on; port 0 picks a free one, 0.0.0.0 listens on all addresses of this machine
    #[arg(long, value_name = "ADDR", default_value_t = Options::default().listen)]
    listen: SocketAddr,
    /// Require `Authorization: Bearer TOKEN` [default: $RCNN_TOKEN, which other users of the machine cannot
    /// see; without either, no token is required]
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Maximum number of pictures computed at once, all of the same padded size
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = Options::default().max_batch, hide_short_help = true)]
    batch_size: usize,
    /// Milliseconds that a batch waits for pictures still being decoded
    #[arg(long, value_name = "MS", default_value_t = Options::default().batch_window.as_millis() as u64, hide_short_help = true)]
    batch_window: u64,
    /// Maximum number of pictures waiting or being computed; further ones get status 429
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = Options::default().queue, hide_short_help = true)]
    queue: usize,
    /// Maximum size of a request in MiB; larger ones get status 413
    #[arg(long, value_name = "MB", value_parser = positive, default_value_t = Options::default().max_body >> 20, hide_short_help = true)]
    max_body: usize,
    /// Maximum megapixels (1024x1024) of a picture, by its header; larger ones get status 413
    #[arg(long, value_name = "MP", value_parser = positive, default_value_t = Options::default().max_pixels >> 20, hide_short_help = true)]
    max_pixels: usize,
    /// Maximum number of connections; further ones wait
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = Options::default().max_connections, hide_short_help = true)]
    max_connections: usize,
    /// Seconds for a request to arrive (408), again for its detections (503), and again for the answer
    /// to be taken
    #[arg(long, value_name = "S", value_parser = positive, default_value_t = Options::default().timeout.as_secs() as usize, hide_short_help = true)]
    timeout: usize,
    /// How to log requests on standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
}

pub(crate) fn run(args: ServeArgs) -> Result<Outcome> {
    set_format(args.log);
    let options = args.options()?;
    let mut weights = args.model.open(&args.weights)?;
    args.thresholds.apply(&mut weights.config);
    let has_token = options.token.is_some();
    let server = Server::bind(options)?;
    introduce(server.local_addr(), has_token);
    let device = args.compute.device.clone();
    run_on(
        &[device],
        Serve {
            args,
            weights,
            server,
        },
    )
}

/// Says where the server is and how to use it.
fn introduce(address: SocketAddr, has_token: bool) {
    let access = match has_token {
        true => format!(" -H \"Authorization: Bearer ${TOKEN}\""),
        false => String::new(),
    };
    tracing::info!(
        "listening on http://{address}: open it in a browser, or\n  curl --data-binary @photo.jpg{access} \
         'http://{address}/detect?score_thresh=0.5'"
    );
    if !address.ip().is_loopback() && !has_token {
        tracing::warn!("anyone who can reach this address can use the server: no --token is set");
    }
}

impl ServeArgs {
    fn options(&self) -> Result<Options> {
        let token = match &self.token {
            Some(token) => Some(token.clone()),
            None => match env::var(TOKEN) {
                Ok(token) => Some(token),
                Err(env::VarError::NotPresent) => None,
                Err(error) => return Err(error).context(TOKEN),
            },
        };
        let is_usable =
            |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !token.as_ref().is_none_or(is_usable) {
            bail!("--token and {TOKEN}: expected visible ASCII characters without spaces");
        }
        Ok(Options {
            listen: self.listen,
            token,
            max_batch: self.batch_size,
            batch_window: Duration::from_millis(self.batch_window.min(10_000)),
            queue: self.queue,
            max_body: self.max_body.saturating_mul(1 << 20),
            max_pixels: self.max_pixels.saturating_mul(1 << 20),
            max_connections: self.max_connections,
            timeout: Duration::from_secs(self.timeout.min(86_400) as u64),
        })
    }
}

struct Serve {
    args: ServeArgs,
    weights: Weights,
    server: Server,
}

impl Job for Serve {
    type Output = Outcome;

    fn run<B: DetectionBackend>(self, mut devices: Vec<B::Device>) -> Result<Outcome> {
        let Self {
            args,
            weights,
            server,
        } = self;
        let device = devices.remove(0);
        let load = move || {
            let model = args.model.load::<B>(weights, &device)?;
            let model = model.cast(args.compute.dtype.into())?;
            let place = args.compute.device.to_string();
            let name = args.weights.to_string_lossy();
            anyhow::Ok(Detector::new(&name, &place, model, device)?)
        };
        server.run(load, interrupted())?;
        Ok(Outcome::Done)
    }
}
