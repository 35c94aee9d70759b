//! What a frame costs: time, and bytes over the wire. Only rows in sight are built, so it must not grow with the
//! fleet; what does grow, sorting and counting after a change, is measured on its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::cell::Cell;
use std::hint::black_box;
use std::io::{self, Write};
use std::rc::Rc;

use criterion::{Criterion, criterion_group, criterion_main};
use pilothouse::api::{Change, Delta, InstanceView};
use pilothouse::client::Update;
use pilothouse::tui::fixture;
use pilothouse::tui::model::Model;
use pilothouse::tui::screen::Screen;
use pilothouse::tui::theme::Theme;
use pilothouse::tui::update::{Msg, update};

#[derive(Clone, Default)]
struct Counting(Rc<Cell<usize>>);

impl Write for Counting {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.set(self.0.get() + buf.len());
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const SIZES: [(u16, u16); 2] = [(80, 24), (200, 50)];

fn model(instances: u32, size: (u16, u16)) -> Model {
    let mut m = Model::default();
    update(&mut m, Msg::Time { now_ms: 0, wall_ms: fixture::WALL_MS });
    update(&mut m, Msg::Resize(size.0, size.1));
    update(&mut m, Msg::Update(Update::Snapshot(Box::new(fixture::crowd(instances)))));
    m
}

/// Changes the first instance in sight.
fn touch(m: &mut Model, n: u32) {
    let seen = m.row(0).unwrap().clone();
    let changed = InstanceView { probe_ms: Some(n % 90 + 10), ..seen };
    let seq = m.snapshot.as_ref().unwrap().seq + 1;
    let delta = Delta { seq, changes: vec![Change::Instance(Box::new(changed))] };
    update(m, Msg::Update(Update::Delta(delta)));
}

fn frames(c: &mut Criterion) {
    let theme = Theme::default();
    for size in SIZES {
        for n in [20, 1_000, 5_000] {
            let label = format!("{n} instances {}x{}", size.0, size.1);
            let mut m = model(n, size);
            let out = Counting::default();
            let mut screen = Screen::new(out.clone());
            screen.draw(&mut m, &theme).unwrap();
            let first = out.0.replace(0);
            screen.draw(&mut m, &theme).unwrap();
            let nothing = out.0.replace(0);
            touch(&mut m, 5);
            screen.draw(&mut m, &theme).unwrap();
            let one = out.0.replace(0);
            println!(
                "bytes, {label}: first paint {first}, nothing changed {nothing}, one instance changed {one}"
            );

            c.bench_function(&format!("draw, nothing changed, {label}"), |b| {
                b.iter(|| screen.draw(black_box(&mut m), &theme).unwrap());
            });
            let mut k = 0;
            c.bench_function(&format!("change one and draw, {label}"), |b| {
                b.iter(|| {
                    k += 1;
                    touch(&mut m, k);
                    screen.draw(black_box(&mut m), &theme).unwrap()
                });
            });
        }
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
