// RUN: moa-opt %s | moa-opt | FileCheck %s
// RUN: moa-opt %s --mlir-print-op-generic | moa-opt | FileCheck %s
// RUN: moa-opt %s | FileCheck %s --check-prefix=SPACES --strict-whitespace

!item = !moa_tile.item<prefill>
!one = !moa_tile.item<decode>
!state = !moa_tile.state<64x64>
!few = !moa_tile.state<3x64>
!q = !moa_tile.tile<64x64xf32>
!kv = !moa_tile.tile<64x64xbf16>

// CHECK-LABEL: func.func @prefill
// CHECK-SAME: moa_tile.config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
func.func @prefill(%item: !item) attributes {
    moa_tile.config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>} {
  // CHECK: moa_tile.load_queries %{{.*}} : <prefill> -> <64x64xf32>
  %q = moa_tile.load_queries %item : !item -> !q
  // CHECK: moa_tile.init : <64x64>
  %s0 = moa_tile.init : !state
  // SPACES: {{= }}moa_tile.for_blocks all %
  // CHECK: moa_tile.for_blocks all %{{.*}}, %{{.*}} : <prefill>, <64x64> {
  %s1 = moa_tile.for_blocks all %item, %s0 : !item, !state {
  // CHECK-NEXT: ^bb0(%[[B:.*]]: index, %[[S:.*]]: !moa_tile.state<64x64>):
  ^bb0(%b: index, %s: !state):
    // CHECK: moa_tile.load_keys %{{.*}}[%[[B]]] : <prefill> -> <64x64xbf16>
    %k = moa_tile.load_keys %item[%b] : !item -> !kv
    // CHECK: moa_tile.scores %{{.*}}, %{{.*}} : <64x64xf32>, <64x64xbf16> -> <64x64xf32>
    %x = moa_tile.scores %q, %k : !q, !kv -> !q
    // CHECK: moa_tile.soft_cap %{{.*}} to 5.000000e+01 : <64x64xf32>
    %y = moa_tile.soft_cap %x to 50.0 : !q
    // CHECK: moa_tile.mask (sink, window, causal) %{{.*}}, %{{.*}}[%[[B]]] : <64x64xf32>, <prefill>
    %m = moa_tile.mask (sink, window, causal) %y, %item[%b] : !q, !item
    // CHECK: moa_tile.softmax_step %{{.*}}, %[[S]] : <64x64xf32>, <64x64> -> <64x64xf32>
    %p, %t = moa_tile.softmax_step %m, %s : !q, !state -> !q
    // CHECK: moa_tile.load_values
    %v = moa_tile.load_values %item[%b] : !item -> !kv
    // CHECK: moa_tile.accumulate %{{.*}}, %{{.*}}, %{{.*}} skip_zero : <64x64xf32>, <64x64xbf16>, <64x64>
    %n = moa_tile.accumulate %p, %v, %t skip_zero : !q, !kv, !state
    // CHECK: moa_tile.yield %{{.*}} : <64x64>
    moa_tile.yield %n : !state
  }
  // CHECK: moa_tile.store %{{.*}}, %{{.*}} as bf16 : <64x64>, <prefill>
  moa_tile.store %s1, %item as bf16 : !state, !item
  return
}

// CHECK-LABEL: func.func @segments
func.func @segments(%item: !one) {
  %s0 = moa_tile.init : !few
  // CHECK: moa_tile.for_blocks sink
  %s1 = moa_tile.for_blocks sink %item, %s0 : !one, !few {
  ^bb0(%b: index, %s: !few):
    moa_tile.yield %s : !few
  }
  // CHECK: moa_tile.for_blocks edge
  %s2 = moa_tile.for_blocks edge %item, %s1 : !one, !few {
  ^bb0(%b: index, %s: !few):
    moa_tile.yield %s : !few
  }
  // CHECK: moa_tile.for_blocks full
  %s3 = moa_tile.for_blocks full %item, %s2 : !one, !few {
  ^bb0(%b: index, %s: !few):
    moa_tile.yield %s : !few
  }
  // CHECK: moa_tile.for_blocks diagonal
  %s4 = moa_tile.for_blocks diagonal %item, %s3 : !one, !few {
  ^bb0(%b: index, %s: !few):
    moa_tile.yield %s : !few
  }
  // CHECK: moa_tile.store_partial %{{.*}}, %{{.*}} : <3x64>, <decode>
  moa_tile.store_partial %s4, %item : !few, !one
  return
}

// CHECK-LABEL: func.func @append
func.func @append(%item: !moa_tile.item<append>) {
  // CHECK: moa_tile.copy_rows %{{.*}} dims 80 of f16 : <append>
  moa_tile.copy_rows %item dims 80 of f16 : !moa_tile.item<append>
  return
}

// CHECK-LABEL: func.func @rope
func.func @rope(%item: !moa_tile.item<rope>) {
  // CHECK: moa_tile.rotate_rows %{{.*}} dims 80 of f16 rope(<half, 32>) : <rope>
  moa_tile.rotate_rows %item dims 80 of f16 rope(<half, 32>) : !moa_tile.item<rope>
  return
}
