"""The whole way from footage to a refined video: a DAG of jobs, each skipped when it is done."""
