"""The routing policy: which way of working together a router should use, learned in a simulator."""
