"""A Ray cluster on this machine, as a process: a head without CPUs, and as many nodes as standard input asks for.

Its argument is the port of Ray's client. Each line that it reads is a number of CPUs; it answers with the process
number of the new node's raylet. Its first line is the cluster's address. It ends with its standard input.
"""

import sys


def main() -> None:
    from ray.cluster_utils import Cluster  # this file is read where there is no Ray, too

    head = {"num_cpus": 0, "include_dashboard": False, "ray_client_server_port": int(sys.argv[1])}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        print(cluster.address, flush=True)
        for line in sys.stdin:
            node = cluster.add_node(num_cpus=int(line))
            (raylet,) = node.all_processes["raylet"]
            print(raylet.process.pid, flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
