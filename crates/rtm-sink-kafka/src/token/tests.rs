#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;

fn options(over: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    let base = [
        (METHOD, "oidc"),
        (URL, "https://login.example/token"),
        (ID, "bridge"),
        (SECRET, "canary"),
    ];
    for (name, value) in base.iter().chain(over) {
        options.insert((*name).into(), (*value).into());
    }
    options
}

/// Holds: what OIDC needs, and what is not built in, is named by its option, and no value is shown.
#[test]
fn what_is_not_built_in_is_named() {
    assert!(Oidc::of(&options(&[])).unwrap().is_some());
    for (over, name) in [
        ((METHOD, "other"), METHOD),
        (
            (GRANT, "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            GRANT,
        ),
        ((URL, "ftp://login.example"), URL),
        (
            ("sasl.oauthbearer.extensions", "canary=1"),
            "sasl.oauthbearer.extensions",
        ),
    ] {
        let error = Oidc::of(&options(&[over])).err().unwrap();
        let error = format!("{error:?}");
        assert!(error.contains(name) && !error.contains("canary"), "{error}");
    }
    let mut without = options(&[]);
    without.remove(SECRET);
    assert_eq!(Oidc::of(&without).err().unwrap().name, SECRET);
}

/// Holds: a token lasts for as long as its own claim says, or else the answer; without either it is none.
#[test]
fn a_token_says_how_long_it_lasts() {
    let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"someone","exp":4000000000}"#);
    let signed = json!({ "access_token": format!("a.{claims}.c"), "expires_in": 5 });
    let token = Token::read(&signed, "bridge").unwrap();
    assert_eq!(
        (token.ends, token.principal.as_str()),
        (4_000_000_000_000, "someone")
    );
    let opaque = json!({ "access_token": "opaque", "expires_in": 60 });
    let token = Token::read(&opaque, "bridge").unwrap();
    assert!(token.is_good() && token.principal == "bridge");
    for bad in [
        json!({ "access_token": "opaque" }),
        json!({ "expires_in": 5 }),
    ] {
        assert!(Token::read(&bad, "bridge").is_err());
    }
}

/// Answers one request for a token with `token`, and gives the tokens of a client that asks there.
fn endpoint(token: &'static str) -> Arc<Tokens> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 4096];
        let mut read = 0;
        while !String::from_utf8_lossy(&bytes[..read]).contains("grant_type=") {
            read += stream.read(&mut bytes[read..]).unwrap();
        }
        let body = json!({ "access_token": token, "expires_in": 60 }).to_string();
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
    });
    Tokens::new(&options(&[(URL, &url)]))
}

/// Holds: an answer that came after its asker had gone, and is of no use, is forgotten, and the endpoint is asked again.
#[test]
fn a_late_refusal_is_not_told() {
    let ended = Token {
        text: "old".into(),
        principal: "bridge".into(),
        ends: 1,
    };
    for late in [Err("it answers 503".to_owned()), Ok(ended)] {
        let tokens = endpoint("new");
        tokens.state.lock().unwrap().answer = Some(late);
        assert_eq!(tokens.next().unwrap().token, "new");
    }
}

/// Holds: a question whose thread fails is over, and the next one is asked.
#[test]
fn a_thread_that_fails_is_not_waited_for() {
    let tokens = endpoint("new");
    tokens.state.lock().unwrap().is_asking = true;
    let asking = Asking {
        tokens: Arc::clone(&tokens),
        answer: None,
    };
    let failed = thread::spawn(move || {
        let _asking = asking;
        panic!("planted");
    });
    assert!(failed.join().is_err());
    assert_eq!(tokens.next().unwrap().token, "new");
}
