//! What a process prints, and to whom.

use std::fmt;
use std::future::pending;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::unix::pipe::Receiver;

/// Longest line that is kept; what follows it is dropped up to the line's end.
const LINE_BYTES_MAX: usize = 2048;
const READ_BYTES: usize = 4096;

/// Who takes what a process prints. Called on an executor's thread: whatever it does must be quick.
#[derive(Clone)]
pub enum Sink {
    /// Line by line, without empty ones; long ones are cut.
    Lines(Arc<TakeLine>),
    /// As it comes.
    Raw(Arc<TakeBytes>),
}

type TakeLine = dyn Fn(&str) + Send + Sync;
type TakeBytes = dyn Fn(&[u8]) + Send + Sync;

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lines(_) => "Lines",
            Self::Raw(_) => "Raw",
        })
    }
}

/// Both streams of one process.
#[derive(Debug)]
pub(super) struct Output {
    sink: Sink,
    stdout: Option<Stream<Receiver>>,
    stderr: Option<Stream<Receiver>>,
    /// The last line of each that was not empty.
    last: Last,
}

#[derive(Debug, Default)]
struct Last {
    stdout: String,
    stderr: String,
}

#[derive(Debug)]
struct Stream<R> {
    reader: R,
    lines: Lines,
    buffer: Box<[u8; READ_BYTES]>,
}

impl Output {
    pub(super) fn new(sink: Sink, stdout: Receiver, stderr: Receiver) -> Self {
        Self {
            sink,
            stdout: Some(Stream::new(stdout)),
            stderr: Some(Stream::new(stderr)),
            last: Last::default(),
        }
    }

    /// The last line that says something: programs tell why they end before they end, on stderr if they use it.
    pub(super) fn last(&self) -> &str {
        if self.last.stderr.is_empty() {
            &self.last.stdout
        } else {
            &self.last.stderr
        }
    }

    /// Passes on what comes until both streams end. Cancel-safe: nothing that was read is lost.
    pub(super) async fn pass_on(&mut self) {
        while self.stdout.is_some() || self.stderr.is_some() {
            let (lines, last) = tokio::select! {
                lines = read(&mut self.stdout, &self.sink) => (lines, &mut self.last.stdout),
                lines = read(&mut self.stderr, &self.sink) => (lines, &mut self.last.stderr),
            };
            for line in lines {
                if let Sink::Lines(take) = &self.sink {
                    take(&line);
                }
                *last = line;
            }
        }
    }
}

/// The lines that the next piece completes; a stream that ends becomes none.
async fn read<R: AsyncRead + Unpin>(slot: &mut Option<Stream<R>>, sink: &Sink) -> Vec<String> {
    let Some(stream) = slot else {
        return pending().await;
    };
    match stream.reader.read(stream.buffer.as_mut_slice()).await {
        Ok(count @ 1..) => {
            let piece = stream.buffer.get(..count).unwrap_or_default();
            if let Sink::Raw(take) = sink {
                take(piece);
            }
            stream.lines.push(piece)
        }
        Ok(0) | Err(_) => {
            let rest = stream.lines.finish();
            *slot = None;
            rest.into_iter().collect()
        }
    }
}

impl<R> Stream<R> {
    fn new(reader: R) -> Self {
        Self {
            reader,
            lines: Lines::default(),
            buffer: Box::new([0; READ_BYTES]),
        }
    }
}

/// Cuts bytes into lines of bounded length.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            // One byte more than is shown tells that the line was longer.
            let room = (LINE_BYTES_MAX + 1).saturating_sub(self.line.len());
            self.line
                .extend_from_slice(text.get(..room).unwrap_or(text));
            if ended {
                lines.extend(self.finish());
            }
        }
        lines
    }

    /// The line so far.
    fn finish(&mut self) -> Option<String> {
        let mut line = std::mem::take(&mut self.line);
        let cut = line.len() > LINE_BYTES_MAX;
        line.truncate(LINE_BYTES_MAX);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            return None;
        }
        Some(if cut {
            format!("{text}…")
        } else {
            text.to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_they_come_and_long_ones_are_cut() {
        let long = "x".repeat(LINE_BYTES_MAX + 10);
        let text = format!("one\r\n\n{long}\ntwo\n{}\nrest", "y".repeat(LINE_BYTES_MAX));
        let expected = [
            "one".to_owned(),
            format!("{}…", "x".repeat(LINE_BYTES_MAX)),
            "two".to_owned(),
            "y".repeat(LINE_BYTES_MAX),
            "rest".to_owned(),
        ];
        for size in [1, 2, 3, 7, 1000, text.len()] {
            let mut lines = Lines::default();
            let mut seen: Vec<String> = text
                .as_bytes()
                .chunks(size)
                .flat_map(|piece| lines.push(piece))
                .collect();
            seen.extend(lines.finish());
            assert_eq!(seen, expected, "in pieces of {size}");
        }
    }
}
