//! Triton's trace files: one JSON list of entries, several to a trace, which share its `id`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::sync::atomic::Ordering;

use super::Trace;

/// A file that is this long gets nothing more: the disk is for others too.
const BYTES_MAX: u64 = 1 << 30;

/// Files that are open. Only a file per log frequency would make more, and of those each is done when the next begins.
const OPEN_MAX: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Files {
    open: HashMap<String, Open>,
}

/// Always a whole list: what is added replaces the closing bracket.
#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

impl Files {
    pub(super) fn write(&mut self, traces: impl Iterator<Item = Trace>) {
        let mut texts: Vec<(String, bool, String)> = Vec::new();
        for trace in traces {
            let (path, first) = place(&trace);
            match texts.last_mut() {
                Some((last, _, text)) if *last == path && !first => {
                    text.push(',');
                    add(text, &trace);
                }
                _ => {
                    let mut text = String::new();
                    add(&mut text, &trace);
                    texts.push((path, first, text));
                }
            }
        }
        for (path, first, text) in texts {
            if let Err(error) = self.append(&path, first, &text) {
                // Once for each attempt to open it: a file that cannot be written is not kept open.
                self.open.remove(&path);
                tracing::warn!(file = path, %error, "a trace cannot be written");
            }
        }
    }

    fn append(&mut self, path: &str, first: bool, text: &str) -> io::Result<()> {
        if first {
            self.open.remove(path);
        }
        if !self.open.contains_key(path) {
            if self.open.len() >= OPEN_MAX {
                self.open.clear();
            }
            self.open.insert(path.to_owned(), Open::new(path, first)?);
        }
        let Some(open) = self.open.get_mut(path) else {
            return Ok(());
        };
        open.append(text)
    }
}

impl Open {
    /// Empty, or what an earlier writer of this process left: a list.
    fn new(path: &str, first: bool) -> io::Result<Self> {
        let mut file = File::options()
            .create(true)
            .write(true)
            .truncate(first)
            .open(path)?;
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, bytes })
    }

    fn append(&mut self, text: &str) -> io::Result<()> {
        if self.bytes > BYTES_MAX {
            return Ok(());
        }
        let mut whole = String::with_capacity(text.len() + 2);
        if self.bytes == 0 {
            whole.push('[');
        } else {
            self.file.seek(SeekFrom::Start(self.bytes - 1))?;
            self.bytes -= 1;
            whole.push(',');
        }
        whole.push_str(text);
        whole.push(']');
        self.file.write_all(whole.as_bytes())?;
        self.bytes += whole.len() as u64;
        if self.bytes > BYTES_MAX {
            tracing::warn!(
                bytes = self.bytes,
                "a trace file is full; no more is traced into it"
            );
        }
        Ok(())
    }
}

/// Which file, and whether this trace begins it.
fn place(trace: &Trace) -> (String, bool) {
    let number = trace.live.written.fetch_add(1, Ordering::Relaxed);
    let file = trace.live.file();
    match u64::from(trace.live.log_frequency()) {
        // What is there is from another time only if this process has not written yet.
        0 => (file.to_owned(), trace.id == 1),
        every => (
            format!("{file}.{}", number / every),
            number.is_multiple_of(every),
        ),
    }
}

fn add(text: &mut String, trace: &Trace) {
    let id = trace.id;
    // Triton writes versions as numbers, and -1 for none.
    let version = trace.version.parse().unwrap_or(-1_i64);
    // Writing to a String cannot fail.
    let _infallible = write!(
        text,
        "{{\"id\":{id},\"model_name\":{},\"model_version\":{version}",
        quoted(&trace.model)
    );
    if !trace.request_id.is_empty() {
        let _infallible = write!(text, ",\"request_id\":{}", quoted(&trace.request_id));
    }
    text.push('}');
    for (name, ns) in &trace.moments {
        let _infallible = write!(
            text,
            ",{{\"id\":{id},\"timestamps\":[{{\"name\":\"{name}\",\"ns\":{ns}}}]}}"
        );
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
