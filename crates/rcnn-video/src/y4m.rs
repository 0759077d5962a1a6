//! The headers of Y4M, the format of `ffmpeg -f yuv4mpegpipe`.
//!
//! The crate `y4m` was tried: it takes a frame cut short for the end, doesn't say which kind of chroma it doesn't
//! know, and multiplies the sides of a frame without looking.

use std::io::{self, BufRead, Read};

use rcnn_types::Size;

use crate::reader::check_size;
use crate::yuv::{Chroma, Matrix, Planes};
use crate::{Rate, VideoErrorKind};

const MAGIC: &str = "YUV4MPEG2";
const FRAME: &str = "FRAME";

/// The longest line of a header, in bytes.
const MAX_LINE: u64 = 4096;

/// Kinds of chroma that are read, by their tags. Where the samples of 4:2:0 lie within their blocks makes no difference here.
const KINDS: [(&str, Chroma); 7] = [
    ("420jpeg", Chroma::C420),
    ("420mpeg2", Chroma::C420),
    ("420paldv", Chroma::C420),
    ("420", Chroma::C420),
    ("422", Chroma::C422),
    ("444", Chroma::C444),
    ("mono", Chroma::Mono),
];

/// Rate, pixel format and header tags of a video, with which a [`FrameWriter`](crate::FrameWriter) continues it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoInfo {
    /// Frames a second, where that is known.
    pub rate: Option<Rate>,
    pub(crate) planes: Planes,
    kind: &'static str,
    /// Tags of a Y4M header on interlacing, the pixels' aspect ratio and others.
    tags: Vec<String>,
}

impl Default for VideoInfo {
    /// Nothing known: what is written has 4:2:0 chroma and BT.601's matrix.
    fn default() -> Self {
        Self {
            rate: None,
            planes: Planes {
                chroma: Chroma::C420,
                matrix: Matrix::default(),
                full_range: false,
            },
            kind: KINDS[0].0,
            tags: Vec::new(),
        }
    }
}

impl VideoInfo {
    /// Sets the matrix that Y4M is written with.
    pub fn with_matrix(mut self, matrix: Matrix) -> Self {
        self.planes.matrix = matrix;
        self
    }

    /// The header of a Y4M stream of frames of this size.
    pub(crate) fn y4m_header(&self, size: Size) -> String {
        let rate = self.rate.unwrap_or(Rate::USUAL).with_colon();
        let Size { height, width } = size;
        let mut header = format!("{MAGIC} W{width} H{height} F{rate}");
        let (others, extensions): (Vec<_>, Vec<_>) =
            self.tags.iter().partition(|tag| !tag.starts_with('X'));
        let kind = format!("C{}", self.kind);
        for tag in others.into_iter().chain([&kind]).chain(extensions) {
            header.push(' ');
            header.push_str(tag);
        }
        header.push('\n');
        header
    }

    /// For video that is written: there is chroma.
    pub(crate) fn with_chroma(self) -> Self {
        if self.planes.chroma != Chroma::Mono {
            return self;
        }
        let mut tags = self.tags;
        tags.retain(|tag| !tag.starts_with('X'));
        Self {
            rate: self.rate,
            tags,
            ..Self::default().with_matrix(self.planes.matrix)
        }
    }
}

/// Reads the header of a stream.
pub(crate) fn read_header(input: &mut impl BufRead) -> Result<(Size, VideoInfo), VideoErrorKind> {
    let line = match read_line(input)? {
        Line::Whole(line) => line,
        Line::End => return Err(VideoErrorKind::Empty),
        Line::Cut(line) => match MAGIC.starts_with(&line) || line.starts_with(MAGIC) {
            true => return Err(VideoErrorKind::Truncated("its header began".to_string())),
            false => line,
        },
    };
    let Some(parameters) = line.strip_prefix(MAGIC) else {
        let begin: String = line.chars().take(MAGIC.len()).collect();
        let found =
            format!("this is not Y4M, which begins with {MAGIC}, but begins with {begin:?}");
        return Err(VideoErrorKind::Invalid(found));
    };
    let (mut width, mut height) = (None, None);
    let mut kind = None;
    let mut info = VideoInfo::default();
    for tag in parameters.split(' ').filter(|tag| !tag.is_empty()) {
        let mut value = tag.chars();
        let name = value.next();
        let value = value.as_str();
        match name {
            Some('W') => width = Some(side(tag, value)?),
            Some('H') => height = Some(side(tag, value)?),
            // 0:0 is an unknown rate.
            Some('F') => info.rate = value.parse().ok(),
            Some('C') => kind = Some(value),
            _ => info.tags.push(tag.to_string()),
        }
    }
    let (Some(width), Some(height)) = (width, height) else {
        let text = format!("a Y4M header without width and height: {line}");
        return Err(VideoErrorKind::Invalid(text));
    };
    let size = Size::new(height, width);
    check_size(size)?;
    if let Some(wanted) = kind {
        let Some(&(kind, chroma)) = KINDS.iter().find(|(kind, _)| *kind == wanted) else {
            let known = KINDS.map(|(kind, _)| format!("C{kind}")).join(", ");
            let text = format!(
                "Y4M of C{wanted}; supported are {known} with 8 bits (ffmpeg -pix_fmt yuv420p writes such)"
            );
            return Err(VideoErrorKind::Unsupported(text));
        };
        info.kind = kind;
        info.planes.chroma = chroma;
    }
    let is_tagged = |range: &str| info.tags.iter().any(|tag| tag == range);
    // Grey has the full range, as ffmpeg takes it.
    info.planes.full_range = match info.planes.chroma {
        Chroma::Mono => !is_tagged("XCOLORRANGE=LIMITED"),
        _ => is_tagged("XCOLORRANGE=FULL"),
    };
    Ok((size, info))
}

fn side(tag: &str, value: &str) -> Result<usize, VideoErrorKind> {
    let parsed = value.parse::<u32>();
    let side = parsed.map_err(|_| VideoErrorKind::Invalid(format!("{tag} in a Y4M header")))?;
    Ok(side as usize)
}

/// Reads the line before a frame. `None` at the end of the stream.
pub(crate) fn read_frame_header(input: &mut impl BufRead) -> Result<Option<()>, VideoErrorKind> {
    let line = match read_line(input)? {
        Line::End => return Ok(None),
        Line::Cut(line) if FRAME.starts_with(&line) || line.starts_with(FRAME) => {
            return Err(VideoErrorKind::Truncated("the word FRAME".to_string()));
        }
        Line::Whole(line) | Line::Cut(line) => line,
    };
    match line == FRAME || line.starts_with("FRAME ") {
        true => Ok(Some(())),
        false => {
            let begin: String = line.chars().take(FRAME.len()).collect();
            let text = format!("expected the word {FRAME} before it, not {begin:?}");
            Err(VideoErrorKind::Invalid(text))
        }
    }
}

enum Line {
    Whole(String),
    /// The stream or the patience ended before the line did.
    Cut(String),
    End,
}

fn read_line(input: &mut impl BufRead) -> io::Result<Line> {
    let mut line = Vec::new();
    input.take(MAX_LINE).read_until(b'\n', &mut line)?;
    let is_whole = line.pop_if(|last| *last == b'\n').is_some();
    let text = String::from_utf8_lossy(&line).into_owned();
    Ok(match is_whole {
        true => Line::Whole(text),
        false if text.is_empty() => Line::End,
        false => Line::Cut(text),
    })
}
