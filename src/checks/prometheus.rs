//! A value that a Prometheus computes, by its HTTP API (<https://prometheus.io/docs/prometheus/latest/querying/api/>).

use reqwest::Url;
use serde::Deserialize;

use crate::fleet::model::Limit;
use crate::https::Client;
use crate::rollout::world::Answer;

/// An answer to an instant query; fields that are not needed are left out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    status: String,
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: serde_json::Value,
}

/// One sample: when (seconds), and the value as text (`NaN`, `+Inf` and so on are values too).
type Sample = (f64, String);

#[derive(Deserialize)]
struct Series {
    value: Sample,
}

pub(super) async fn ask(
    http: &Client,
    url: &str,
    query: &str,
    min: Option<Limit>,
    max: Option<Limit>,
) -> (Answer, String) {
    let url = match Url::parse_with_params(&format!("{url}/api/v1/query"), [("query", query)]) {
        Ok(url) => url,
        Err(e) => return (Answer::Unknown, format!("no URL: {e}")),
    };
    match http.get(url.as_str()).await {
        Ok((status, body)) => judge(value(status, &body), min, max),
        Err(why) => (Answer::Unknown, why),
    }
}

/// The one number in an answer.
fn value(status: u16, body: &str) -> Result<f64, String> {
    let Ok(reply) = serde_json::from_str::<Reply>(body) else {
        return Err(format!("{status}, and no answer of a Prometheus"));
    };
    let data = match (reply.status.as_str(), reply.data) {
        ("success", Some(data)) => data,
        _ => return Err(reply.error.unwrap_or_else(|| format!("{status} without a reason"))),
    };
    let odd = || format!("a {} is no number: let the query come to one", data.result_type);
    let (_, text): Sample = match data.result_type.as_str() {
        "scalar" => serde_json::from_value(data.result.clone()).map_err(|_not_one| odd())?,
        "vector" => {
            let mut all: Vec<Series> =
                serde_json::from_value(data.result.clone()).map_err(|_not_one| odd())?;
            match (all.len(), all.pop()) {
                (1, Some(series)) => series.value,
                (0, _) => return Err("no data".to_owned()),
                (n, _) => return Err(format!("{n} series: let the query come to one, with sum() or max()")),
            }
        }
        _ => return Err(odd()),
    };
    match text.parse::<f64>() {
        Ok(value) if !value.is_nan() => Ok(value),
        _ => Err(format!("{text}: no requests yet, or a division by nothing")),
    }
}

fn judge(value: Result<f64, String>, min: Option<Limit>, max: Option<Limit>) -> (Answer, String) {
    let value = match value {
        Ok(value) => value,
        Err(why) => return (Answer::Unknown, why),
    };
    // A sign or two more than anybody needs to see on which side it is.
    let shown = if value != 0.0 && value.abs() < 0.001 { format!("{value:.2e}") } else { short(value) };
    if let Some(min) = min.filter(|m| value < m.value()) {
        (Answer::Bad, format!("{shown}, at least {min}"))
    } else if let Some(max) = max.filter(|m| value > m.value()) {
        (Answer::Bad, format!("{shown}, at most {max}"))
    } else {
        (Answer::Good, shown)
    }
}

/// Four decimals at most.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Result<f64, String> {
        value(200, body)
    }

    #[test]
    fn one_number_is_an_answer_and_nothing_else_is() {
        let vector = |values: &[&str]| {
            let series: Vec<String> =
                values.iter().map(|v| format!(r#"{{"metric":{{}},"value":[1.5,"{v}"]}}"#)).collect();
            format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#,
                series.join(",")
            )
        };
        assert_eq!(of(&vector(&["0.25"])), Ok(0.25));
        assert_eq!(of(&vector(&["+Inf"])), Ok(f64::INFINITY));
        assert_eq!(of(r#"{"status":"success","data":{"resultType":"scalar","result":[1,"3"]}}"#), Ok(3.0));
        for body in [
            vector(&[]),
            vector(&["1", "2"]),
            vector(&["NaN"]),
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.into(),
            r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#.into(),
            r#"{"status":"success"}"#.into(),
            "<html>".into(),
            String::new(),
        ] {
            assert_eq!(judge(of(&body), None, Limit::new(5.0)).0, Answer::Unknown, "{body}");
        }
        assert_eq!(value(400, r#"{"status":"error","error":"parse error"}"#), Err("parse error".into()));
    }

    #[test]
    fn both_bounds_count_and_what_lies_on_them_is_good() {
        let said = |v: f64| judge(Ok(v), Limit::new(0.5), Limit::new(2.0));
        assert_eq!(said(0.5).0, Answer::Good);
        assert_eq!(said(2.0), (Answer::Good, "2".into()));
        assert_eq!(said(0.499), (Answer::Bad, "0.499, at least 0.5".into()));
        assert_eq!(said(f64::INFINITY), (Answer::Bad, "inf, at most 2".into()));
        assert_eq!(judge(Ok(0.000_012), None, Limit::new(0.000_01)).1, "1.20e-5, at most 0.00001");
    }
}
