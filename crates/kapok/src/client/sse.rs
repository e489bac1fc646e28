/// Cuts a server-sent event stream into the data of its events, however the bytes were divided on the way.
///
/// Only `data:` fields matter to us; lines end in LF or CRLF, an empty line ends an event
/// (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
#[derive(Debug, Default)]
pub(crate) struct EventReader {
    /// Bytes of an unfinished line.
    rest: Vec<u8>,
    data: Option<String>,
}

impl EventReader {
    /// The data of every event that `bytes` completes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut events = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if self.rest.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.rest);
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                self.line(line.strip_suffix(b"\r").unwrap_or(line), &mut events);
            }
        }
        events
    }

    fn line(&mut self, line: &[u8], events: &mut Vec<String>) {
        if line.is_empty() {
            events.extend(self.data.take());
            return;
        }
        let Some(value) = line.strip_prefix(b"data:") else {
            return;
        };
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match &mut self.data {
            Some(data) => {
                data.push('\n');
                data.push_str(&value);
            }
            None => self.data = Some(value.into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        let stream = "data: {\"a\":1}\n\n: ping\nevent: x\r\ndata: ü\r\ndata:two\r\n\r\nid: 7\n\ndata:\n\ndata: [DONE]\n\ndata: lost";
        let expected = ["{\"a\":1}", "ü\ntwo", "", "[DONE]"];
        for size in 1..=stream.len() {
            let mut reader = EventReader::default();
            let events: Vec<String> = stream
                .as_bytes()
                .chunks(size)
                .flat_map(|chunk| reader.push(chunk))
                .collect();
            assert_eq!(events, expected, "in pieces of {size}");
        }
    }
}
