//! Documents in gzip, for clients that take it: of the metrics of many App IDs a tenth is left.

use std::io::Write;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::background::background;

/// What is shorter is sent as it is.
const LEAST_BYTES: usize = 1024;

/// Compresses answers.
pub(super) async fn zip(request: Request, next: Next) -> Response {
    let is_taken = takes_gzip(request.headers());
    let (mut head, body) = next.run(request).await.into_parts();
    // Whole documents, of a known size.
    let Ok(plain) = axum::body::to_bytes(body, usize::MAX).await else {
        return Response::from_parts(head, axum::body::Body::empty());
    };
    if plain.len() < LEAST_BYTES {
        return Response::from_parts(head, plain.into());
    }
    let vary = HeaderValue::from_static("accept-encoding");
    head.headers.insert(header::VARY, vary);
    if !is_taken {
        return Response::from_parts(head, plain.into());
    }
    let kept = plain.clone();
    match background(move || compress(&plain)).await {
        Some(Ok(zipped)) => {
            let gzip = HeaderValue::from_static("gzip");
            head.headers.insert(header::CONTENT_ENCODING, gzip);
            head.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(head, zipped.into())
        }
        _ => Response::from_parts(head, kept.into()),
    }
}

fn compress(plain: &Bytes) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish()
}

/// RFC 9110, section 12.5.3.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter();
    let codings = values.filter_map(|value| value.to_str().ok());
    let mut codings = codings.flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let is_refused = |part: &str| {
            let quality = part.strip_prefix("q=").or(part.strip_prefix("Q="));
            quality.is_some_and(|quality| quality.parse::<f32>().is_ok_and(|q| q <= 0.0))
        };
        name.eq_ignore_ascii_case("gzip") && !parts.any(is_refused)
    })
}

#[cfg(test)]
mod tests;
