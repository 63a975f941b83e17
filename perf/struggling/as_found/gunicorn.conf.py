wsgi_app = "app:application"
workers = 4
worker_class = "gevent"
worker_connections = 10000  # never turn a customer away
timeout = 120
control_socket_disable = True
