

func.func @roles_c4_one_thread(%q: !moa_gpu.shared<64x64xf16>) {
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
  ^bb0:
  } consumer {
  ^bb0(%group: i32):
    moa_gpu.one_thread {
      // expected-error @+1 {{(C4 of moa_gpu.roles2) expected outside moa_gpu.one_t_gpu.wait %s pending 0 : !moa_gpu.async<vector<32xf32>>
    }
  }
  return
}

