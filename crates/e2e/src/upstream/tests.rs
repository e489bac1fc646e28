use super::*;
use crate::Client;

fn client(fake: &FakeUpstream) -> Client {
    Client::to(fake.address)
}

#[test]
fn it_answers_as_told_and_remembers_what_it_was_sent() {
    let fake = FakeUpstream::start(Answer::json("{\"a\":1}"))
        .route("/events", Answer::events().event("one").done());
    assert_eq!(client(&fake).post("/x", "sent").text(), "{\"a\":1}");
    let events = client(&fake).post("/events", "");
    assert_eq!(events.text(), "data: one\n\ndata: [DONE]\n\n");
    let head = "POST /y HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks = "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n";
    assert_eq!(
        client(&fake)
            .raw(format!("{head}{chunks}").as_bytes())
            .status,
        200
    );
    let bodies: Vec<_> = fake.received().iter().map(Received::text).collect();
    assert_eq!(bodies, ["sent", "", "abcde"]);
}

#[test]
fn it_cuts_resets_and_falls_silent() {
    let fake = FakeUpstream::start(Answer::events().event("one").cut())
        .route("/reset", Answer::reset())
        .route("/silent", Answer::silent());
    let ask = |path: &str| {
        let client = client(&fake);
        let head = client.head("POST", path, 4);
        client
            .open()?
            .exchange(&[head.as_slice(), b"body"].concat())
    };
    let kind = |path: &str| ask(path).map(|_| ()).map_err(|error| error.kind());
    assert_eq!(kind("/cut"), Err(io::ErrorKind::UnexpectedEof));
    assert_eq!(kind("/reset"), Err(io::ErrorKind::ConnectionReset));
    let silent = client(&fake).open().and_then(|mut connection| {
        connection
            .send(b"POST /silent HTTP/1.1\r\n\r\n")
            .map(|()| connection)
    });
    fake.wait_for_requests(2);
    drop(silent);
    fake.wait_for_disconnect();
}

#[test]
fn a_gate_holds_the_rest_back() {
    let gate = Gate::new();
    let fake = FakeUpstream::start(Answer::events().event("one").wait(&gate).done());
    let mut connection = client(&fake).open().expect("it listens");
    connection.send(b"POST / HTTP/1.1\r\n\r\n").expect("open");
    let mut head = connection.receive_head().expect("an answer");
    let first = connection.receive_part(&mut head).expect("an event");
    assert_eq!(first.as_deref(), Some(b"data: one\n\n".as_slice()));
    gate.open();
    while connection
        .receive_part(&mut head)
        .expect("a proper end")
        .is_some()
    {}
}
