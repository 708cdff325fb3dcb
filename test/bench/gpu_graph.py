"""One kernel of a captured call, so that it is timed without what stands beside it.

Needs torch 2.8 or newer with CUDA, and cuda-bindings.
"""

import torch
from cuda.bindings import driver


def check(result):
    """The value of a call of the driver; RuntimeError where it failed."""
    code, *values = result
    if code != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"CUDA driver: {code.name}")
    return values[0] if len(values) == 1 else tuple(values)


def function_name(node):
    """Of a kernel node; empty for another."""
    kind = check(driver.cuGraphNodeGetType(node))
    if kind != driver.CUgraphNodeType.CU_GRAPH_NODE_TYPE_KERNEL:
        return ""
    parameters = check(driver.cuGraphKernelNodeGetParams(node))
    return check(driver.cuFuncGetName(parameters.func)).decode()


class Call:
    """A captured call: `replay()` runs all of it.

    run: what is captured, on torch's current device.
    """

    def __init__(self, run):
        self.graph = torch.cuda.CUDAGraph(keep_graph=True)
        with torch.cuda.graph(self.graph):
            run()
        self.graph.instantiate()
        self.replay = self.graph.replay

    def alone(self, name):
        """A function that runs the one kernel whose name contains `name`, on torch's
        current stream. Its tables are those of the last replay; ValueError if the
        call has no such kernel or several."""
        whole = driver.CUgraph(self.graph.raw_cuda_graph())
        count = check(driver.cuGraphGetNodes(whole))[1]
        nodes = check(driver.cuGraphGetNodes(whole, count))[0]
        names = [function_name(node) for node in nodes]
        if sum(name in found for found in names) != 1:
            raise ValueError(f"expected one kernel named {name} in the call, found {names}")
        part = check(driver.cuGraphClone(whole))
        for node, found in zip(nodes, names):
            if name not in found:
                twin = check(driver.cuGraphNodeFindInClone(node, part))
                check(driver.cuGraphDestroyNode(twin))
        executable = check(driver.cuGraphInstantiate(part, 0))

        def run():
            stream = driver.CUstream(torch.cuda.current_stream().cuda_stream)
            check(driver.cuGraphLaunch(executable, stream))

        return run
