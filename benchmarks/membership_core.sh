#!/bin/sh
# study=membership on the digits and study=membership_core on four data sets, with rates and batches that suit each (DP-SGD's:
# tune_dpsgd.csv), then membership.csv of all seeds that were run. Half an hour on one core:
#
#     sh benchmarks/membership_core.sh FOLDER [seed]        FOLDER holds adult/, location30/, fashion-mnist/, cifar10/
set -eu
root=${1:?expected: sh benchmarks/membership_core.sh FOLDER [seed]}
seed=${2:-0}
out=runs/membership_core

run() {
    privbench study=membership_core "$@" data.root="$root" seed="$seed" out="$out" workers=1 ||
        [ $? -eq 3 ] # rows that failed stand in the table
}

privbench study=membership seed="$seed" out="$out" workers=1 || [ $? -eq 3 ]

adult() { run data=adult data.records=1800 'model.widths=[108,128,64,32,2]' "$@"; }
adult

clothes() { run data=fashion_mnist data.records=1800 'model.widths=[784,128,64,32,10]' "$@"; }
clothes rows=01,07 regime.lr=0.1 # at 0.3 one of 16 shadow models diverges
clothes rows=03,04,05,06

places() { run data=location30 'model.widths=[446,128,64,32,30]' "$@"; }
places rows=01,05,07
places rows=03 regime.match.batch=209
places rows=040 regime.batch=209 regime.epochs=12
places rows=041,042 regime.batch=209
places rows=06 regime.batch=139 # all records of a client

photographs() {
    run data=cifar10 data.records=6000 model=lenet model.channels=3 model.size=32 threat.budget.shadow_models=8 "$@"
}
photographs rows=01,07 regime.lr=0.1 regime.epochs=30
photographs rows=05 regime.lr=0.1
photographs rows=030 regime.lr=0.1 regime.match.batch=250 regime.match.epochs=12 regime.match.lr=1
photographs rows=032 regime.lr=0.1 regime.match.batch=250 regime.match.epochs=25
photographs rows=040 regime.batch=250 regime.epochs=6 regime.lr=1
photographs rows=041 regime.batch=250 regime.epochs=12 regime.lr=1
photographs rows=042 regime.batch=250 regime.epochs=25
photographs rows=06 regime.batch=166

python benchmarks/collect.py "$out"/studies/*/table.csv >benchmarks/membership.csv
