//! What a client sends is what the upstream reads, and what the upstream streams is what the client reads, to the byte.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::{Answer, FakeUpstream, Kapok};

const CHAT: &str = "/v1/chat/completions";
const BODIES: u64 = 100_000;
/// One of so many has a prompt of a megabyte.
const LARGE_EVERY: u64 = 2_000;
const STREAMS: u64 = 2_000;
const CONNECTIONS: u64 = 8;

/// Steele, Lea and Flood's SplitMix64: a seed makes the same document for both ends.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// Spaces that JSON allows anywhere between two tokens.
const SPACES: [&str; 8] = ["", "", "", " ", "  ", "\n", "\t", "\r\n "];

const NUMBERS: [&str; 14] = [
    "0",
    "-0",
    "0.70",
    "1.0",
    "1.0e0",
    "1E+2",
    "-1.5e-3",
    "1e400",
    "0.1",
    "0.30000000000000004",
    "12345678901234567890123",
    "9007199254740993",
    "1.7976931348623157e308",
    "100000000000000000000.000",
];

const PIECES: [&str; 16] = [
    "plain words",
    "\\u00e9",
    "\\ud83d\\ude00",
    "木棉",
    "😀",
    "\\\"model\\\":\\\"no\\\"",
    "\\\\",
    "\\/",
    "/",
    "\\n\\t\\b\\f\\r",
    "\\u0000",
    "\u{2028}",
    "</script>",
    "data: [DONE]",
    "{",
    "}]",
];

const NAMES: [&str; 14] = [
    "temperature",
    "top_p",
    "x_unknown",
    "messages_",
    "metadata",
    "n",
    "seed",
    "",
    "stop",
    "st\\u0072eam_",
    "MODEL",
    "Model",
    "stream options",
    "ключ",
];

struct Document {
    dice: Dice,
    text: String,
}

impl Document {
    fn of(seed: u64) -> String {
        let mut document = Self {
            dice: Dice(seed),
            text: String::new(),
        };
        document.body(seed);
        document.text
    }

    fn body(&mut self, seed: u64) {
        self.space();
        self.text.push('{');
        let before = self.dice.below(4);
        for _ in 0..before {
            self.field(3);
            self.text.push(',');
        }
        self.space();
        let model = self.dice.one(&["\"model\"", "\"m\\u006fdel\""]);
        self.text.push_str(model);
        self.space();
        self.text.push(':');
        self.space();
        self.text.push_str("\"m\"");
        self.space();
        if seed.is_multiple_of(LARGE_EVERY) {
            self.text.push_str(",\"prompt\":\"");
            while self.text.len() < 1 << 20 {
                let piece = self.dice.one(&PIECES);
                self.text.push_str(piece);
            }
            self.text.push('"');
        }
        for _ in 0..self.dice.below(5) {
            self.text.push(',');
            self.field(3);
        }
        self.text.push('}');
        self.space();
    }

    fn space(&mut self) {
        let space = self.dice.one(&SPACES);
        self.text.push_str(space);
    }

    fn field(&mut self, depth: usize) {
        self.space();
        let name = self.dice.one(&NAMES);
        let _infallible = write!(self.text, "\"{name}\"");
        self.space();
        self.text.push(':');
        self.value(depth);
        self.space();
    }

    fn value(&mut self, depth: usize) {
        self.space();
        match self.dice.below(if depth == 0 { 5 } else { 7 }) {
            0 => {
                let word = self.dice.one(&["true", "false", "null"]);
                self.text.push_str(word);
            }
            1 | 2 => {
                let number = self.dice.one(&NUMBERS);
                self.text.push_str(number);
            }
            3 | 4 => {
                self.text.push('"');
                for _ in 0..self.dice.below(6) {
                    let piece = self.dice.one(&PIECES);
                    self.text.push_str(piece);
                }
                self.text.push('"');
            }
            5 => self.list('[', ']', |it| it.value(depth - 1)),
            _ => self.list('{', '}', |it| it.field(depth - 1)),
        }
        self.space();
    }

    fn list(&mut self, open: char, close: char, item: impl Fn(&mut Self)) {
        self.text.push(open);
        for index in 0..self.dice.below(4) {
            if index > 0 {
                self.text.push(',');
            }
            item(self);
        }
        self.space();
        self.text.push(close);
    }
}

#[test]
fn a_hundred_thousand_bodies_reach_the_upstream_byte_for_byte() {
    // It answers with what it was sent, so each answer shows both ways.
    let echo = FakeUpstream::answering(|request| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            request.body.len()
        );
        Answer::new().write(head).write(&request.body)
    });
    let echo = echo.forgetful();
    let kapok = Kapok::new().upstream("echo", &echo.url()).start();
    let bytes = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for lane in 0..CONNECTIONS {
            let (kapok, bytes) = (&kapok, &bytes);
            scope.spawn(move || {
                let client = kapok.http();
                let mut connection = client.open().expect("it listens");
                for seed in (0..BODIES).filter(|seed| seed % CONNECTIONS == lane) {
                    let body = Document::of(seed);
                    let mut message = client.head("POST", CHAT, body.len());
                    message.extend_from_slice(body.as_bytes());
                    let answer = connection.exchange(&message).expect("an answer");
                    assert!(
                        answer.status == 200 && answer.body == body.as_bytes(),
                        "body {seed} came back changed, or {}: {:.300}\n{body:.300}",
                        answer.status,
                        answer.text()
                    );
                    bytes.fetch_add(body.len(), Ordering::Relaxed);
                }
            });
        }
    });
    println!(
        "{BODIES} bodies, {} MiB, each the same at the upstream and back",
        bytes.load(Ordering::Relaxed) >> 20
    );
}

/// An event stream with all that the format allows (WHATWG HTML, 9.2.5), which ends as OpenAI's do.
fn stream(seed: u64) -> String {
    const PARTS: [&str; 12] = [
        ": a comment\n",
        "event: delta\r\n",
        "id: 7\n",
        "retry: 10\n",
        "data\n",
        "data:no space\n",
        "data: line one\ndata: line two\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"木棉 \\u00e9\"}}]}\n",
        "data: {\"x\": 0.70, \"x\":1}\r\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}\n",
        "unknown: field\n",
        "\n",
    ];
    let mut dice = Dice(seed);
    let mut text = String::new();
    for _ in 0..dice.below(60) {
        text.push_str(dice.one(&PARTS));
        text.push_str(dice.one(&["\n", "\n", "\r\n"]));
    }
    text + "data: [DONE]\n\n"
}

#[test]
fn event_streams_reach_the_client_byte_for_byte_however_they_are_cut() {
    let speaker = FakeUpstream::answering(|request| {
        let seed = request.header("x-seed").and_then(|seed| seed.parse().ok());
        let Some(seed) = seed else {
            return Answer::json("{}");
        };
        let text = stream(seed);
        let (mut dice, mut rest) = (Dice(!seed), text.as_bytes());
        let mut answer = Answer::events();
        let longest = [1, 7, 300, 4000][dice.below(4)];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((1 + dice.below(longest)).min(rest.len()));
            answer = answer.chunk(piece);
            rest = after;
        }
        answer.chunk("")
    });
    let speaker = speaker.forgetful();
    let kapok = Kapok::new().upstream("speaker", &speaker.url()).start();
    std::thread::scope(|scope| {
        for lane in 0..CONNECTIONS {
            let kapok = &kapok;
            scope.spawn(move || {
                let body = r#"{"model":"m","stream":true}"#;
                let mut connection = kapok.http().open().expect("it listens");
                for seed in (0..STREAMS).filter(|seed| seed % CONNECTIONS == lane) {
                    let client = kapok.http().header("x-seed", &seed.to_string());
                    let mut message = client.head("POST", CHAT, body.len());
                    message.extend_from_slice(body.as_bytes());
                    let answer = connection.exchange(&message).expect("a whole stream");
                    assert_eq!(answer.text(), stream(seed), "stream {seed}");
                }
            });
        }
    });
}
