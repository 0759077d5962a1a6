//! Listening, connections and the end.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::sleep;
use tower_service::Service;

use crate::access::{authorize, observe};
use crate::batches::{Queue, compute};
use crate::detector::Detector;
use crate::stalls::Impatient;
use crate::{App, Options, detect, pages};

/// Error of starting or running a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("{address}: cannot listen there: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        error: io::Error,
    },
    /// The operating system lacks what a server needs.
    #[error("the server cannot run: {0}")]
    Io(#[from] io::Error),
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(Box<dyn Error + Send + Sync>),
    /// The thread that computes ended in a panic.
    #[error("the computing thread ended")]
    Stopped,
}

/// A server that listens, and answers once it is [run](Self::run).
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    options: Options,
}

impl Server {
    /// Listens on the address of the options.
    ///
    /// # Errors
    /// When that is not possible: it is in use, or not this machine's.
    pub fn bind(options: Options) -> Result<Self, ServeError> {
        let address = options.listen;
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        let listen: io::Result<_> = listen();
        let (address, listener) = listen.map_err(|error| ServeError::Listen { address, error })?;
        Ok(Self {
            listener,
            address,
            options,
        })
    }

    /// The address that it listens on, with the port that it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Loads the model on the thread that will compute with it, and answers requests until `stop` is ready. Those
    /// that were begun by then are finished.
    ///
    /// # Errors
    /// When the model cannot be loaded.
    pub fn run<E: Into<Box<dyn Error + Send + Sync>>>(
        self,
        load: impl FnOnce() -> Result<Detector, E> + Send + 'static,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let Self {
            listener, options, ..
        } = self;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let app = Arc::new(App::new(options));
        let (ended, computing) = oneshot::channel();
        let worker = {
            let app = app.clone();
            let work = move || {
                let loaded = load().map_err(|error| ServeError::Load(error.into()));
                let result = loaded.map(|detector| {
                    tracing::info!(device = detector.info.device, "ready");
                    // It is set once, here.
                    let _ = app.model.set(detector.info.clone());
                    compute(&app, &detector);
                });
                let _ = ended.send(result);
            };
            thread::Builder::new().name("detector".into()).spawn(work)?
        };
        let result = runtime.block_on(serve(app.clone(), listener, stop, computing));
        // What still decodes for clients that hung up is not waited for.
        runtime.shutdown_background();
        if result.is_ok() {
            worker.join().map_err(|_| ServeError::Stopped)?;
        }
        result
    }
}

/// Waits until the process is told to end: by SIGTERM, or ctrl-c.
pub async fn interrupted() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = interrupt.await;
}

impl App {
    fn new(options: Options) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.clamp(1, MOST_PERMITS)));
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self {
            queue: Arc::new(Queue::new(&options)),
            body_bytes: semaphore(options.all_bodies()),
            pixels: semaphore(options.all_pixels()),
            decoders: semaphore(processors.min(4)),
            connections: semaphore(options.max_connections),
            model: Default::default(),
            is_stopping: AtomicBool::new(false),
            metrics: Default::default(),
            options,
        }
    }
}

/// Most permits that can be asked for at once.
const MOST_PERMITS: usize = match Semaphore::MAX_PERMITS < u32::MAX as usize {
    true => Semaphore::MAX_PERMITS,
    false => u32::MAX as usize,
};

fn router(app: &Arc<App>) -> Router {
    // The page itself asks for the token; who watches the process has none.
    let open = Router::new()
        .route("/", get(pages::page))
        .route("/page.css", get(pages::style))
        .route("/page.js", get(pages::script))
        .route("/health", get(pages::health))
        .route("/ready", get(pages::ready));
    let closed = Router::new()
        .route("/detect", post(detect::detect))
        .route("/model", get(pages::model))
        .route("/metrics", get(pages::metrics))
        .route_layer(from_fn_with_state(app.clone(), authorize));
    open.merge(closed)
        .fallback(pages::not_found)
        .method_not_allowed_fallback(pages::wrong_method)
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), observe))
        .with_state(app.clone())
}

async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
    computing: oneshot::Receiver<Result<(), ServeError>>,
) -> Result<(), ServeError> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = router(&app);
    let (stopping, stopped) = watch::channel(());
    let mut computing = pin!(computing);
    let mut stop = pin!(stop);
    let failed = loop {
        let accept = async {
            let accepted = listener.accept().await;
            // Beyond the most, one waits here, and others in the system's queue.
            (accepted, app.connections.clone().acquire_owned().await.ok())
        };
        tokio::select! {
            (accepted, permit) = accept => match accepted {
                Ok((stream, _)) => {
                    let connection = Connection { router: router.clone(), app: app.clone() };
                    tokio::spawn(connection.run(stream, stopped.clone(), permit));
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    // There may be no file descriptors left.
                    sleep(Duration::from_millis(100)).await;
                }
            },
            () = &mut stop => break None,
            result = &mut computing => break Some(result),
        }
    };
    drop(listener);
    if let Some(result) = failed {
        return result.unwrap_or(Err(ServeError::Stopped));
    }
    app.is_stopping.store(true, Ordering::Relaxed);
    tracing::info!(
        pictures = app.queue.len(),
        "stopping: running requests are finished"
    );
    stopping.send_replace(());
    let all = app.options.max_connections.clamp(1, MOST_PERMITS) as u32;
    let finished = app.connections.acquire_many(all);
    tokio::select! {
        _ = finished => {}
        // Body, answer and its delivery each have their time.
        () = sleep(app.options.timeout * 3) => tracing::warn!("some clients are left without an answer"),
        () = interrupted() => tracing::warn!("stopped at once"),
    }
    app.queue.close();
    Ok(())
}

struct Connection {
    router: Router,
    app: Arc<App>,
}

impl Connection {
    /// Answers one request after another, until the client has no more or the server stops.
    async fn run(
        self,
        stream: TcpStream,
        mut stopped: watch::Receiver<()>,
        _permit: Option<OwnedSemaphorePermit>,
    ) {
        let options = &self.app.options;
        // Answers are written in one go.
        let _ = stream.set_nodelay(true);
        let stream = TokioIo::new(Impatient::new(stream, options.timeout));
        let is_asked = AtomicBool::new(false);
        let service = service_fn(|request: Request<Incoming>| {
            is_asked.store(true, Ordering::Relaxed);
            let answer = self.router.clone().call(request.map(Body::new));
            async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.patience())
            .max_buf_size(64 << 10)
            .serve_connection(stream, service);
        let mut connection = pin!(connection);
        tokio::select! {
            // Errors are those of the client, who is gone.
            _ = connection.as_mut() => return,
            _ = stopped.changed() => {}
        }
        if is_asked.load(Ordering::Relaxed) {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
