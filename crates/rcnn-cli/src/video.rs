//! Where pictures come from: files, frames of a video, standard input; and frames that go on into a pipe.

use std::io::{self, IsTerminal, Stdin};
use std::ops::ControlFlow::{self, Continue};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Error, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use image::RgbImage;
use rcnn_image::{Animation, frame_count};
use rcnn_video::{
    FrameReader, FrameWriter, OutputFormat, Rate, StreamFormat, VideoErrorKind, VideoInfo,
};

use crate::inputs::{self, Order};
use crate::tiles::Pixels;

/// Which pictures are frames of a video, and how they are read.
#[derive(Args)]
#[command(next_help_heading = "Video")]
pub(crate) struct VideoArgs {
    /// Read frames from standard input: y4m (ffmpeg -f yuv4mpegpipe), mjpeg (concatenated JPEGs), or
    /// rgb:WIDTHxHEIGHT (raw bytes of red, green and blue)
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["images", "recursive"])]
    pub(crate) stdin: Option<StreamFormat>,
    /// Read the pictures as frames of a video: in natural order (9 before 10), with all frames of an animated
    /// GIF or WebP
    ///
    /// Implied by --track and --output -.
    #[arg(long)]
    frames: bool,
    /// Frames per second, such as 25, 29.97 or 30000/1001; overrides the input's
    #[arg(long, value_name = "RATE", hide_short_help = true)]
    fps: Option<Rate>,
    /// Matrix between RGB and the YUV of Y4M, whose header does not have it
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Matrix::Bt601, hide_short_help = true)]
    matrix: Matrix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Matrix {
    /// Standard definition; what ffmpeg assumes
    Bt601,
    /// High definition
    Bt709,
}

impl VideoArgs {
    /// Opens what is to be read: standard input, or files, as frames where `as_frames` or the options say so.
    pub(crate) fn open(
        &self,
        files: &[PathBuf],
        recursive: bool,
        as_frames: bool,
    ) -> Result<Input> {
        let matrix = match self.matrix {
            Matrix::Bt601 => rcnn_video::Matrix::Bt601,
            Matrix::Bt709 => rcnn_video::Matrix::Bt709,
        };
        if let Some(format) = self.stdin {
            if io::stdin().is_terminal() {
                bail!("--stdin {format}: nothing is piped into standard input");
            }
            let reader = FrameReader::new(io::stdin(), format).map_err(in_stdin)?;
            let reader = reader.with_matrix(matrix);
            return Ok(Input::Stream(match self.fps {
                Some(rate) => reader.with_rate(rate),
                None => reader,
            }));
        }
        if !self.frames && !as_frames {
            return Ok(Input::Files(inputs::expand(
                files,
                recursive,
                Order::ByName,
            )?));
        }
        let mut info = VideoInfo::default().with_matrix(matrix);
        info.rate = self.fps;
        Ok(Input::Frames(
            inputs::expand(files, recursive, Order::Natural)?,
            info,
        ))
    }
}

/// The pictures to detect in.
pub(crate) enum Input {
    /// Files, each by itself.
    Files(Vec<PathBuf>),
    /// Files that are frames, or have some.
    Frames(Vec<PathBuf>, VideoInfo),
    /// Standard input.
    Stream(FrameReader<Stdin>),
}

/// A picture on its way.
pub(crate) struct Picture {
    /// Which of the files, and what it is called.
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) frame: Option<Frame>,
    pub(crate) pixels: Pixels,
    /// Number of frames of its file that were left out.
    pub(crate) left_out: usize,
}

/// The place of a picture in a video.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) number: u64,
    /// Time in seconds, if it is known.
    pub(crate) time: Option<f64>,
    /// Whether the picture is a file by itself.
    pub(crate) is_file: bool,
}

impl Input {
    /// The files that are read.
    pub(crate) fn files(&self) -> &[PathBuf] {
        match self {
            Self::Files(files) | Self::Frames(files, _) => files,
            Self::Stream(_) => &[],
        }
    }

    /// Names of files that pictures drawn on are named after.
    pub(crate) fn names(&self) -> Vec<&Path> {
        match self {
            Self::Stream(reader) => vec![Path::new(match reader.format() {
                StreamFormat::Mjpeg => "frame.jpg",
                _ => "frame.png",
            })],
            _ => self.files().iter().map(PathBuf::as_path).collect(),
        }
    }

    /// Rate, pixel format and header tags, as far as the input has them.
    pub(crate) fn info(&self) -> VideoInfo {
        match self {
            Self::Files(_) => VideoInfo::default(),
            Self::Frames(_, info) => info.clone(),
            Self::Stream(reader) => reader.info().clone(),
        }
    }

    /// The format in which frames are written where nothing is said.
    pub(crate) fn output_format(&self) -> OutputFormat {
        match self {
            Self::Stream(reader) if reader.format() == StreamFormat::Mjpeg => OutputFormat::Mjpeg,
            _ => OutputFormat::Y4m,
        }
    }

    /// Reads one picture after the other, as long as they are taken; large files part by part, if `in_parts`.
    pub(crate) fn read(
        self,
        in_parts: bool,
        mut take: impl FnMut(Result<Picture>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match self {
            Self::Files(files) => {
                for (index, path) in files.iter().enumerate() {
                    let picture = still(index, path, None, in_parts).map(|picture| Picture {
                        left_out: frame_count(path).map_or(0, |count| count - 1),
                        ..picture
                    });
                    take(picture)?;
                }
            }
            Self::Frames(files, info) => {
                let mut numbers = 0..;
                for (index, path) in files.iter().enumerate() {
                    match Animation::open(path) {
                        Ok(Some(frames)) => animated(index, path, frames, &mut take)?,
                        Ok(None) => {
                            let frame = numbers.next().map(|number| Frame {
                                number,
                                time: info.rate.map(|rate| rate.seconds(number)),
                                is_file: true,
                            });
                            take(still(index, path, frame, in_parts))?;
                        }
                        Err(error) => take(Err(error.into()))?,
                    }
                }
            }
            Self::Stream(reader) => {
                for frame in reader {
                    let picture = frame.map_err(in_stdin).map(|frame| Picture {
                        index: 0,
                        name: "stdin".to_string(),
                        frame: Some(Frame {
                            number: frame.number,
                            time: frame.time,
                            is_file: false,
                        }),
                        pixels: Pixels::Whole(frame.image),
                        left_out: 0,
                    });
                    take(picture)?;
                }
            }
        }
        Continue(())
    }
}

fn still(index: usize, path: &Path, frame: Option<Frame>, in_parts: bool) -> Result<Picture> {
    Ok(Picture {
        index,
        name: path.to_string_lossy().into_owned(),
        frame,
        pixels: Pixels::open(path, in_parts)?,
        left_out: 0,
    })
}

/// Reads the frames of an animation, which is a video of its own.
fn animated(
    index: usize,
    path: &Path,
    frames: Animation,
    take: &mut impl FnMut(Result<Picture>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut time = Duration::ZERO;
    for (number, frame) in (0..).zip(frames) {
        let picture = frame.map_err(|error| match number {
            0 => error.into(),
            number => anyhow!("{}: frame {number}: {}", path.display(), error.kind),
        });
        take(picture.map(|(image, shown)| {
            let frame = Frame {
                number,
                time: Some(time.as_secs_f64()),
                is_file: false,
            };
            time += shown;
            Picture {
                index,
                name: path.to_string_lossy().into_owned(),
                frame: Some(frame),
                pixels: Pixels::Whole(image),
                left_out: 0,
            }
        }))?;
    }
    Continue(())
}

fn in_stdin(error: rcnn_video::VideoError) -> Error {
    anyhow!("standard input: {error}")
}

/// Frames that go on into a pipe.
pub(crate) struct PipedVideo(FrameWriter<io::Stdout>);

impl PipedVideo {
    pub(crate) fn new(format: OutputFormat, info: VideoInfo) -> Self {
        Self(FrameWriter::new(io::stdout(), format, info))
    }

    pub(crate) fn write(&mut self, image: &RgbImage) -> Result<()> {
        self.0.write(image).map_err(|error| match error.kind {
            // A reader that has enough is not told about it.
            VideoErrorKind::Io(error) => error.into(),
            _ => anyhow!("--output -: {error}"),
        })
    }
}
