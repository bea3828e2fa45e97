//! A future with a foreign error, run by a handle without `adapt`.

use tower_rampart::bulkhead::Bulkhead;

#[derive(Debug)]
struct ForeignError;

fn main() {
    let bulkhead = Bulkhead::new("db", 1).unwrap();
    drop(bulkhead.run(async { Err::<(), _>(ForeignError) }));
}
