//! Streams of every kind, whole, cut and damaged; conversion against ffmpeg's.
//!
//! `tests/reference/make_video.py` makes the files.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use image::{Rgb, RgbImage};
use rcnn_types::Size;

use super::{
    Frame, FrameReader, FrameWriter, Matrix, OutputFormat, StreamFormat, VideoError,
    VideoErrorKind, VideoInfo,
};

const RGB: StreamFormat = StreamFormat::Rgb(Size {
    height: 12,
    width: 16,
});

fn file(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    fs::read(folder.join(name)).unwrap()
}

fn read(bytes: &[u8], format: StreamFormat) -> Result<Vec<Result<Frame, VideoError>>, VideoError> {
    Ok(FrameReader::new(bytes, format)?.collect())
}

/// The error of a stream, and how many frames came before it.
fn error(bytes: &[u8], format: StreamFormat) -> (usize, String) {
    match read(bytes, format) {
        Err(error) => (0, error.to_string()),
        Ok(frames) => {
            let whole = frames.iter().filter(|frame| frame.is_ok()).count();
            let error = frames.into_iter().find_map(Result::err);
            (whole, error.expect("an error").to_string())
        }
    }
}

fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 16) as u8, (y * 20) as u8, (x * y * 2) as u8])
    })
}

fn written(pictures: &[RgbImage], format: OutputFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = FrameWriter::new(&mut bytes, format, VideoInfo::default());
    pictures.iter().for_each(|p| writer.write(p).unwrap());
    bytes
}

#[test]
fn colours_are_those_of_ffmpeg() {
    for (name, tolerance) in [
        ("420jpeg", 3),
        ("422", 3),
        ("444", 1),
        ("mono", 0),
        ("420jpeg-full", 3),
    ] {
        let stream = file(&format!("{name}.y4m"));
        for (matrix, of) in [(Matrix::Bt601, "bt601"), (Matrix::Bt709, "bt709")] {
            let reader = FrameReader::new(stream.as_slice(), StreamFormat::Y4m).unwrap();
            let frames: Vec<_> = reader.with_matrix(matrix).map(Result::unwrap).collect();
            let expected = file(&format!("{name}.{of}.rgb"));
            assert_eq!((frames.len(), frames[0].time), (1, Some(0.0)), "{name}");
            let pairs = frames[0].image.as_raw().iter().zip(&expected);
            let furthest = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(furthest <= tolerance, "{name} {of}: {furthest}");
        }
    }
}

/// Frames that nothing is drawn on leave as they came, but for what colours beyond RGB lose.
#[test]
fn what_is_read_is_written_again() {
    for name in ["420jpeg", "422", "444", "420jpeg-full"] {
        let stream = file(&format!("{name}.y4m"));
        let frames = FrameReader::new(stream.as_slice(), StreamFormat::Y4m).unwrap();
        let mut again = Vec::new();
        let mut writer = FrameWriter::new(&mut again, OutputFormat::Y4m, frames.info().clone());
        for frame in frames {
            writer.write(&frame.unwrap().image).unwrap();
        }
        let end = stream.iter().position(|&b| b == b'\n').unwrap();
        assert_eq!(again[..end], stream[..end], "{name}");
        assert_eq!(again.len(), stream.len(), "{name}");
        let luma = end + 7..end + 7 + 16 * 12;
        let pairs = again[luma.clone()].iter().zip(&stream[luma]);
        let close = pairs.filter(|(a, b)| a.abs_diff(**b) <= 1).count();
        assert!(close > 150, "{name}: {close} of 192");
    }
    // Boxes on grey are coloured.
    let grey = file("mono.y4m");
    let info = FrameReader::new(grey.as_slice(), StreamFormat::Y4m)
        .unwrap()
        .info()
        .clone();
    let mut coloured = Vec::new();
    let mut writer = FrameWriter::new(&mut coloured, OutputFormat::Y4m, info);
    writer.write(&picture(16, 12)).unwrap();
    let header = b"YUV4MPEG2 W16 H12 F25:1 Ip A0:0 C420jpeg\nFRAME\n";
    assert_eq!(coloured[..header.len()], header[..]);
}

#[test]
fn odd_sides_have_chroma_too() {
    let pictures = [picture(15, 11), picture(15, 11)];
    let stream = written(&pictures, OutputFormat::Y4m);
    let frames = read(&stream, StreamFormat::Y4m).unwrap();
    assert_eq!(frames.len(), 2);
    for frame in frames {
        let frame = frame.unwrap();
        assert_eq!(frame.image.dimensions(), (15, 11));
        let pairs = frame.image.as_raw().iter().zip(pictures[0].as_raw());
        let differences = pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
        assert!(differences / (15 * 11 * 3) < 8, "{differences}");
    }
}

#[test]
fn raw_pixels_are_taken_as_they_are() {
    let pictures = [picture(16, 12), RgbImage::new(16, 12)];
    let stream = pictures.each_ref().map(|p| p.as_raw().as_slice()).concat();
    let reader = FrameReader::new(stream.as_slice(), RGB).unwrap();
    let frames = reader.with_rate("12.5".parse().unwrap());
    let frames: Vec<_> = frames.map(Result::unwrap).collect();
    assert_eq!(frames[0].image, pictures[0]);
    assert_eq!((frames[1].number, frames[1].time), (1, Some(0.08)));
    let found = error(&stream[..600], RGB);
    let says = "frame 1: the stream is cut short: it ends after 24 of 576 bytes";
    assert_eq!(found, (1, says.to_string()));
    assert!(error(b"", RGB).1.ends_with("the stream is empty (0 bytes)"));
}

#[test]
fn jpegs_follow_each_other_with_and_without_gaps() {
    let pictures = [picture(16, 12), picture(30, 20)];
    let stream = written(&pictures, OutputFormat::Mjpeg);
    let sizes = |bytes: &[u8]| -> Vec<_> {
        let frames = read(bytes, StreamFormat::Mjpeg).unwrap();
        let sizes = frames.into_iter().map(|f| f.unwrap().image.dimensions());
        sizes.collect()
    };
    assert_eq!(sizes(&stream), [(16, 12), (30, 20)]);
    let [first, second] = pictures.map(|p| written(&[p], OutputFormat::Mjpeg));
    // A camera over HTTP.
    let part = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n".as_slice();
    let multipart = [part, &first, b"\r\n", part, &second, b"\r\n--frame--\r\n"].concat();
    assert_eq!(sizes(&multipart), [(16, 12), (30, 20)]);
    // A thumbnail within a segment is no frame.
    let length = (first.len() + 2) as u16;
    let segment = [b"\xff\xe5", length.to_be_bytes().as_slice(), &first].concat();
    let mut with_thumbnail = second.clone();
    with_thumbnail.splice(2..2, segment);
    assert_eq!(
        sizes(&[&with_thumbnail[..], &first].concat()),
        [(30, 20), (16, 12)]
    );
}

/// A damaged JPEG costs itself alone.
#[test]
fn a_damaged_jpeg_is_an_error_of_its_frame() {
    let jpeg = written(&[picture(16, 12)], OutputFormat::Mjpeg);
    let mut damaged = jpeg.clone();
    // The marker of the frame header: there is none now.
    let sof = damaged.windows(2).position(|w| w == b"\xff\xc0").unwrap();
    damaged[sof + 1] = 0xe7;
    // Height and width stand behind its length and precision.
    let mut huge = jpeg.clone();
    huge[sof + 5..sof + 9].copy_from_slice(&[0x40, 0, 0x40, 0]);
    let mut larger = jpeg.clone();
    larger[sof + 5..sof + 9].fill(0xff);
    let stream = [&jpeg[..], &damaged, &jpeg, &huge, &larger].concat();
    let frames = read(&stream, StreamFormat::Mjpeg).unwrap();
    let whole: Vec<_> = frames.iter().map(Result::is_ok).collect();
    assert_eq!(whole, [true, false, true, false, false]);
    let says = |number: usize| frames[number].as_ref().unwrap_err().to_string();
    let of_frames = "frame 3: frames of 16384x16384 pixels";
    assert!(says(3).starts_with(of_frames), "{}", says(3));
    // More than is read of any picture.
    let of_pictures = "frame 4: 65535x65535 pixels are more than";
    assert!(says(4).starts_with(of_pictures), "{}", says(4));
    assert_eq!(frames[1].as_ref().unwrap_err().frame, Some(1));
    assert_eq!(frames[2].as_ref().unwrap().number, 2);
}

/// A half picture and the whole one behind it were one frame of both.
#[test]
fn a_jpeg_that_another_one_cuts_short_is_an_error_and_the_other_a_frame() {
    let jpeg = written(&[picture(16, 12)], OutputFormat::Mjpeg);
    let scan = jpeg.windows(2).position(|w| w == b"\xff\xda").unwrap();
    let half = &jpeg[..(scan + jpeg.len()) / 2];
    let stream = [&jpeg[..], half, half, &jpeg, b"\xff\xd8\xff", &jpeg[1..]].concat();
    let frames = read(&stream, StreamFormat::Mjpeg).unwrap();
    let whole: Vec<_> = frames.iter().map(Result::is_ok).collect();
    assert_eq!(whole, [true, false, false, true, false, true]);
    let says = frames[1].as_ref().unwrap_err().to_string();
    assert_eq!(says, "frame 1: the JPEG data is cut short");
    assert_eq!(frames[5].as_ref().unwrap().number, 5);
}

#[test]
fn streams_cut_anywhere_give_their_whole_frames_and_an_error_that_names_the_next() {
    let pictures = [picture(16, 12), picture(16, 12)];
    for (output, format) in [
        (OutputFormat::Y4m, StreamFormat::Y4m),
        (OutputFormat::Mjpeg, StreamFormat::Mjpeg),
    ] {
        let stream = written(&pictures, output);
        let header = match format {
            StreamFormat::Y4m => stream.iter().position(|&b| b == b'\n').unwrap() + 1,
            _ => 0,
        };
        let frame = (stream.len() - header) / 2;
        for length in 1..stream.len() {
            let whole = length.saturating_sub(header) / frame;
            if length == header || length == header + frame {
                assert_eq!(read(&stream[..length], format).unwrap().len(), whole);
                continue;
            }
            // One byte of a JPEG is none.
            if format == StreamFormat::Mjpeg && length == frame + 1 {
                continue;
            }
            let (found, says) = error(&stream[..length], format);
            assert_eq!(found, whole, "{format} cut to {length}: {says}");
            let named = match length < header {
                true => says.starts_with("the stream is cut short"),
                false => says.starts_with(&format!("frame {whole}: ")),
            };
            assert!(named, "{format} cut to {length}: {says}");
        }
    }
}

#[test]
fn what_is_not_read_is_named() {
    let y4m = |header: &str| error(format!("{header}\n").as_bytes(), StreamFormat::Y4m).1;
    let says = y4m("YUV4MPEG2 W16 H12 F25:1 C420p10");
    assert!(
        says.starts_with("not supported: Y4M of C420p10; supported are C420jpeg"),
        "{says}"
    );
    assert!(y4m("YUV4MPEG2 W16 H12 C411").contains("C411"));
    assert!(y4m("YUV4MPEG2 W16").contains("without width and height"));
    assert!(y4m("YUV4MPEG2 W16 H-12").contains("H-12"));
    let huge = y4m("YUV4MPEG2 W4294967295 H4294967295");
    assert!(
        huge.starts_with("frames of 4294967295x4294967295 pixels"),
        "{huge}"
    );
    assert!(y4m("YUV4MPEG2 W0 H5").starts_with("frames of 0x5 pixels"));
    assert!(y4m("RIFF1234AVI LIST").contains("begins with \"RIFF1234A\""));
    assert_eq!(
        y4m("").as_str(),
        "this is not Y4M, which begins with YUV4MPEG2, but begins with \"\""
    );
    assert!(error(b"", StreamFormat::Y4m).1.contains("empty"));
    let garbage = error(&[7; 100_000], StreamFormat::Mjpeg).1;
    assert!(
        garbage.contains("no JPEG begins within 65536 bytes"),
        "{garbage}"
    );
    let after = error(b"YUV4MPEG2 W1 H1 Cmono\nFRAME\n.FRANK\n", StreamFormat::Y4m);
    let says = "frame 1: expected the word FRAME before it, not \"FRANK\"";
    assert_eq!(after, (1, says.to_string()));
    for text in [
        "rgb",
        "rgb:0x5",
        "rgb:5",
        "rgb:99999999x99999999",
        "avi",
        "",
    ] {
        assert!(text.parse::<StreamFormat>().is_err(), "{text}");
    }
}

/// ffmpeg writes 0:0 for rates and aspects that are not known, and others leave tags out.
#[test]
fn headers_may_say_little() {
    for (header, time) in [
        ("YUV4MPEG2 H2 W2", None),
        ("YUV4MPEG2 W2 H2 F0:0", None),
        ("YUV4MPEG2 W2  H2 F2:1 Ip A0:0 C420 XA B", Some(0.0)),
    ] {
        let stream = format!("{header}\nFRAME Ip\n123456");
        let frames = read(stream.as_bytes(), StreamFormat::Y4m).unwrap();
        assert_eq!(frames[0].as_ref().unwrap().time, time, "{header}");
    }
}

#[test]
fn frames_of_another_size_are_not_written_as_y4m() {
    let mut writer = FrameWriter::new(io::sink(), OutputFormat::Y4m, VideoInfo::default());
    writer.write(&picture(16, 12)).unwrap();
    let error = writer.write(&picture(16, 14)).unwrap_err();
    let says = "frame 1: the frame has 16x14 pixels, but the video being written has 16x12";
    assert_eq!(error.to_string(), says);
    assert!(matches!(error.kind, VideoErrorKind::Size { .. }));
}

/// A stream without end is read a frame at a time.
#[test]
fn frames_are_not_collected() {
    struct Endless(u64);
    impl Read for Endless {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            // Pipes give what they have.
            let count = bytes.len().min(1000);
            bytes[..count].fill(1);
            self.0 += count as u64;
            Ok(count)
        }
    }
    let mut input = Endless(0);
    let frames = FrameReader::new(&mut input, RGB).unwrap();
    assert_eq!(frames.take(1000).filter(Result::is_ok).count(), 1000);
    let ahead = input.0 - 1000 * 576;
    assert!(ahead < 20_000, "{ahead} bytes ahead");
}

/// A frame is written before the next is asked for: someone may be waiting for it.
#[test]
fn frames_are_flushed() {
    struct Flushed(Vec<u8>, usize);
    impl Write for Flushed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            self.1 = self.0.len();
            Ok(())
        }
    }
    let mut output = Flushed(Vec::new(), 0);
    let mut writer = FrameWriter::new(&mut output, OutputFormat::Y4m, VideoInfo::default());
    writer.write(&picture(16, 12)).unwrap();
    assert_eq!(output.1, output.0.len());
}
